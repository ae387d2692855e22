"""Dataclasses by name: `score=judge` is the one in `__all__` of the file `judge.py` of the package of scores.

Nothing here imports torch, nor do the files themselves, so that settings can be checked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from prefopt.errors import UserError, did_you_mean
from prefopt.fill import SettingsError, from_mapping
from prefopt.own_code import class_of_file


def names_in(package: str) -> list[str]:
    """Every name in a package of prefopt, sorted."""
    return sorted(m.name for m in iter_modules(import_module(package).__path__))


def class_in(package: str, name: str, where: str, what: str) -> type:
    """The dataclass of a name. where: the key that names it, what: what it names ("stage"), for the message.

    Raises: UserError where there is none of that name, or its file cannot be used.
    """
    known = names_in(package)
    if not name:
        raise SettingsError(where, f"no {what} is named", did_you_mean("", known))
    if name not in known:
        raise UserError(f"{where}: there is no {name!r}", did_you_mean(name, known))
    return class_of_file(package, name)


def make_in(package: str, settings: Mapping[str, Any], where: str, what: str) -> Any:
    """What {"name": "sample", "n": 8, ...} describes. where: the dotted key of `settings`. what: as of `class_in`.

    Raises: SettingsError for an unknown name or setting, a value of another type, or one that the class refuses.
    """
    given = {key: value for key, value in settings.items() if key != "name"}
    cls = class_in(package, str(settings.get("name", "")), f"{where}.name", what)
    try:
        return from_mapping(cls, given, where)
    except ValueError as error:
        raise SettingsError(where, str(error)) from None


def typed_in(package: str, settings: Mapping[str, Any], where: str, what: str) -> dict[str, Any]:
    """The settings, every one there and of its type. Raises: as `make_in`."""
    made = make_in(package, settings, where, what)
    return {"name": settings["name"], **asdict(made)}
