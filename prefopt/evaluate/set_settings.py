"""What a set of `measure=preferences` may say of itself. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefopt.fill import SettingsError, from_mapping
from prefopt.settings import SourceSettings


@dataclass(frozen=True)
class NamedSet:
    """One set. path, format, split, config, limit: as `data.train` takes them (config is its `name`, of a hub data
    set). category: the column that says to which category a row belongs, or None."""

    path: str = ""
    format: str = "auto"
    split: str = "train"
    config: str | None = None
    limit: int | None = None
    category: str | None = None

    def source(self) -> SourceSettings:
        """The set as training's reader takes it."""
        return SourceSettings(self.path, self.format, self.split, self.config, 1.0, self.limit)


def read_sets(sets: Mapping[str, Any], where: str) -> dict[str, NamedSet]:
    """The sets by name; a text stands for {path: text}. where: the key that has them, for messages.

    Raises: SettingsError for a name that cannot stand in a figure's, and for what is no set.
    """
    found = {}
    for name, said in sets.items():
        key = f"{where}.{name}"
        if "/" in name or not name:
            raise SettingsError(key, f"{name!r} cannot name a set: figures are called NAME/metric", "leave out the /")
        one = NamedSet(said) if isinstance(said, str) else from_mapping(NamedSet, said, key)
        if not one.path:
            raise SettingsError(key, "it names no file", f"{key}=FILE, or {{path: FILE, category: COLUMN}}")
        if one.limit is not None and one.limit < 1:
            raise SettingsError(f"{key}.limit", f"must be 1 or more, not {one.limit}", "leave it out to take every row")
        found[name] = one
    return found
