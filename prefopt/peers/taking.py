"""The account of an import: every key of the file ends in a line, and every setting knows where it is from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

NEAR = 0.8
"""How alike (difflib's ratio) an unknown key is to the one that it may be meant for: `betta` to `beta` is 0.89."""


class Kind(StrEnum):
    """What became of a key. Their order is that of the table."""

    OTHER = "other meaning"
    NONE = "no equivalent"
    UNKNOWN = "unknown"
    TAKEN = "taken over"
    DEFAULT = "peer's default"
    WITHOUT = "without effect"


@dataclass(frozen=True)
class Line:
    """One key. value: as the file has it. to: the setting or settings that it became. said: what to know."""

    kind: Kind
    key: str
    value: str
    to: str = ""
    said: str = ""


@dataclass(frozen=True)
class Options:
    """What the file does not say. processes: it ran on. rows: of the training data. trainer: which of TRL's."""

    processes: int = 1
    rows: int | None = None
    trainer: str | None = None

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ValueError(f"processes must be 1 or more, not {self.processes}")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows must be 1 or more, not {self.rows}")


@dataclass
class Taking:
    """What is left of the file, and what has come of it.

    given: the file's keys. settings: dotted key of prefopt to value; comments: the same to what stands above it.
    asked: keys that were looked for, in the file or not. groups: the group choices of the recipe.
    needed: sentences that say what has to be done before the recipe can be trained.
    """

    given: Mapping[str, Any]
    options: Options
    lines: list[Line] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    groups: dict[str, str] = field(default_factory=dict)
    needed: list[str] = field(default_factory=list)

    def get(self, key: str, default: Any = None) -> Any:
        """The file's value; `default` where there is none or null."""
        self.asked.add(key)
        value = self.given.get(key)
        return default if value is None else value

    def first(self, *keys: str) -> str:
        """The first of several spellings that the file has; the first spelling where it has none."""
        return next((key for key in keys if self.get(key) is not None), keys[0])

    def take(self, key: str, to: str, value: Any, said: str = "") -> None:
        """The setting `to` from a key of the file. said: makes it one with another meaning."""
        self.set(to, value, f"from {key}: {shown(self.given[key])}")
        self.note(Kind.OTHER if said else Kind.TAKEN, key, said, f"{to}={shown(value)}")

    def choose(self, key: str, group: str, name: str, said: str = "") -> None:
        """A group's choice from a key of the file."""
        self.groups[group] = name
        self.note(Kind.OTHER if said else Kind.TAKEN, key, said, f"{group}={name}")

    def assume(self, key: str, to: str, value: Any) -> None:
        """A setting from the default that the peer has for a key which the file leaves out."""
        self.set(to, value, f"the peer's default: {key} is not in the file")
        self.lines.append(Line(Kind.DEFAULT, key, "", f"{to}={shown(value)}"))

    def set(self, to: str, value: Any, comment: str) -> None:
        """A setting and what stands above it."""
        self.settings[to] = value
        self.comments[to] = comment

    def note(self, kind: Kind, key: str, said: str = "", to: str = "") -> None:
        """The line of a key; nothing where the file has no such key, or a line is about it already."""
        if key in self.given and all(line.key != key for line in self.lines):
            self.lines.append(Line(kind, key, shown(self.given[key]), to, said))

    @property
    def unread(self) -> list[str]:
        """Keys that no line is about yet."""
        known = {line.key for line in self.lines}
        return [key for key in self.given if key not in known]

    def close(self, no_equivalent: Mapping[str, str], without_effect: Mapping[str, str]) -> None:
        """A line for every key that is left, and for every setting that no line is about yet.

        The tables: key to what is to be said of it.
        """
        for key in self.unread:
            if self.given[key] is None:
                self.note(Kind.WITHOUT, key, "null")
            elif key in without_effect:
                self.note(Kind.WITHOUT, key, without_effect[key])
            elif key in no_equivalent:
                is_off = self.given[key] is False or self.given[key] == 0
                self.note(Kind.WITHOUT if is_off else Kind.NONE, key, "off" if is_off else no_equivalent[key])
            else:
                self.note(Kind.UNKNOWN, key, self._unknown(key, frozenset((*no_equivalent, *without_effect))))
        for to, value in self.settings.items():
            if not any(_is_about(line, to) for line in self.lines):
                self.lines.append(Line(Kind.DEFAULT, f"{to}={shown(value)}", "", said=self.comments[to]))

    def _unknown(self, key: str, tables: frozenset[str]) -> str:
        """What to say of an unknown key: the known one that it may be meant for, where one is near."""
        near = get_close_matches(key, (self.asked | tables) - {key}, n=1, cutoff=NEAR)
        if not near:
            return "not known to this import: look whether it matters"
        has_default = any(line.kind is Kind.DEFAULT and line.key == near[0] for line in self.lines)
        default = ", of which the peer's default is written" if has_default else ""
        return f"not known to this import: did you mean {near[0]!r}{default}?"


def _is_about(line: Line, to: str) -> bool:
    """Whether a line says what became of the setting `to`."""
    return any(part == to or part.startswith((f"{to}=", f"{to}.")) for part in line.to.split(", "))


def shown(value: Any) -> str:
    """A value as one short line of YAML's flow style."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 120 else text[:117] + "..."
