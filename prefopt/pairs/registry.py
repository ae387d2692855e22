"""The stages by name: `generate=sample` is the one dataclass in `__all__` of `prefopt/pairs/generate/sample.py`.

Nothing here imports torch until a stage is opened, so that settings can be checked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from prefopt.errors import UserError, did_you_mean
from prefopt.fill import SettingsError, from_mapping

KINDS = ("generate", "score", "select")


def names(kind: str) -> list[str]:
    """Every stage of a kind, sorted."""
    return sorted(m.name for m in iter_modules(import_module(f"prefopt.pairs.{kind}").__path__))


def stage_class(kind: str, name: str, where: str | None = None) -> type:
    """The dataclass of a stage. where: the key that names it, for the message.

    Raises: UserError where there is none of that name.
    """
    if not name:
        raise SettingsError(where or kind, "no stage is named", did_you_mean("", names(kind)))
    if name not in names(kind):
        raise UserError(f"{where or kind}: there is no {name!r}", did_you_mean(name, names(kind)))
    module = import_module(f"prefopt.pairs.{kind}.{name}")
    (class_name,) = module.__all__
    return getattr(module, class_name)


def make_stage(kind: str, settings: Mapping[str, Any], where: str | None = None) -> Any:
    """The stage that {"name": "sample", "n": 8, ...} describes. where: the dotted key of `settings`.

    Raises: SettingsError for an unknown stage or setting, a value of another type, or one that the stage refuses.
    """
    where = where or kind
    given = {key: value for key, value in settings.items() if key != "name"}
    cls = stage_class(kind, str(settings.get("name", "")), f"{where}.name")
    try:
        return from_mapping(cls, given, where)
    except ValueError as error:
        raise SettingsError(where, str(error)) from None


def typed(kind: str, settings: Mapping[str, Any], where: str | None = None) -> dict[str, Any]:
    """The settings of a stage, every one there and of its type. Raises: as `make_stage`."""
    stage = make_stage(kind, settings, where)
    return {"name": settings["name"], **asdict(stage)}
