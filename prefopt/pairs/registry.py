"""The stages by name: `generate=sample` is the one dataclass in `__all__` of `prefopt/pairs/generate/sample.py`.

Nothing here imports torch until a stage is opened, so that settings can be checked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.registry import class_in, make_in, names_in, typed_in

KINDS = ("generate", "score", "select")


def names(kind: str) -> list[str]:
    """Every stage of a kind, sorted."""
    return names_in(_package(kind))


def stage_class(kind: str, name: str, where: str | None = None) -> type:
    """The dataclass of a stage. where: the key that names it, for the message.

    Raises: UserError where there is none of that name.
    """
    return class_in(_package(kind), name, where or kind, "stage")


def make_stage(kind: str, settings: Mapping[str, Any], where: str | None = None) -> Any:
    """The stage that {"name": "sample", "n": 8, ...} describes. where: the dotted key of `settings`.

    Raises: SettingsError for an unknown stage or setting, a value of another type, or one that the stage refuses.
    """
    return make_in(_package(kind), settings, where or kind, "stage")


def typed(kind: str, settings: Mapping[str, Any], where: str | None = None) -> dict[str, Any]:
    """The settings of a stage, every one there and of its type. Raises: as `make_stage`."""
    return typed_in(_package(kind), settings, where or kind, "stage")


def _package(kind: str) -> str:
    return f"prefopt.pairs.{kind}"
