"""The schema of a loop: what `recipes/rounds/rounds.yaml` and the recipes beside it may say. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class CarrySettings:
    """A value that goes from round to round. first: in round 1. then: in the next one, told when a round is done."""

    first: str = ""
    then: str = ""


@dataclass
class RoundsSettings:
    """A loop. rounds: how many. inputs: names to what steps are given: text, numbers, or lists of words.

    before, steps, after: lists of {name, run, with}, done once, in every round, and once at the end.
    """

    name: str = "rounds"
    dir: str = ""
    rounds: int = 1
    seed: int = 42
    inputs: dict[str, Any] = field(default_factory=dict)
    carry: dict[str, CarrySettings] = field(default_factory=dict)
    before: list[Any] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)
    after: list[Any] = field(default_factory=list)


NOT_IDENTITY = ("name", "dir", "rounds")
"""Settings that do not decide what a round does. With a larger `rounds` a loop goes on where it had ended."""


@dataclass(frozen=True)
class Step:
    """One command. name: of its folder and in placeholders. run: a key of `COMMANDS`. words: as after that command."""

    name: str
    run: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Loop:
    """A composed loop, its steps read. shown: what messages call the recipe. given: inputs that the user gave."""

    shown: str
    settings: RoundsSettings
    before: tuple[Step, ...]
    steps: tuple[Step, ...]
    after: tuple[Step, ...]
    given: frozenset[str] = frozenset()

    @property
    def folder(self) -> Path:
        """Where everything of the loop lies."""
        return Path(self.settings.dir)

    @property
    def all_steps(self) -> tuple[Step, ...]:
        """Every step, in the order of the recipe."""
        return (*self.before, *self.steps, *self.after)


def deciding(settings: RoundsSettings) -> dict[str, Any]:
    """The settings that decide what a round does, as plain nested dicts and lists."""
    return {key: value for key, value in asdict(settings).items() if key not in NOT_IDENTITY}


@dataclass(frozen=True)
class CommandKind:
    """What a loop knows of a command of prefopt.

    folder_key: the setting that says where it writes. owned: settings that a step may not have, and why. gives: part of
    a placeholder to the file or folder under the step's folder that it stands for; "" is the folder itself.
    """

    folder_key: str
    owned: dict[str, str]
    gives: dict[str, str]


_FOLDER = "the loop gives each step a folder of its own"

COMMANDS = {
    "train": CommandKind("dir", {"dir": _FOLDER}, {"dir": "", "model": "model"}),
    "pairs": CommandKind(
        "out",
        {"out": _FOLDER, "shard": "a part of the prompts would be taken for all of them"},
        {"dir": "", "pairs": "pairs.jsonl"},
    ),
}
"""What a step may run."""
