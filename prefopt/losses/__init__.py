"""The methods. One file each: equation, paper, settings, and the few lines that compute it.

A method is found by its file's name: `loss=simpo` is the one dataclass that `prefopt/losses/simpo.py` lists in
`__all__`.
Nothing here imports torch until a loss is called, so that settings can be checked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from prefopt.batch import Loss
from prefopt.errors import UserError, did_you_mean
from prefopt.loss_file import HOW, check_units, misplaced, place_of
from prefopt.needs import NEEDS
from prefopt.own_code import class_of_file

_NOT_METHODS = {"numerics", "terms"}


def names() -> list[str]:
    """Every method, sorted."""
    return sorted(m.name for m in iter_modules(__path__) if m.name not in _NOT_METHODS)


def loss_class(name: str) -> type:
    """The dataclass of a method.

    Raises: UserError where there is no such method, with where its file belongs; or where its file cannot be used.
    """
    folder = Path(__path__[0])
    if name not in names():
        near = did_you_mean(name, names())
        near = near if near.startswith("did") else "prefopt losses lists them."
        own = f" A method of your own is the file {place_of(name, folder)}." if name.isidentifier() else ""
        hint = near + own
        raise UserError(f"loss: there is no method {name!r}", misplaced(name, folder) or hint)
    cls = class_of_file(__name__, name)
    _check(cls, folder / f"{name}.py")
    return cls


def _check(cls: type, file: Path) -> None:
    """Raises: UserError where a method's class lacks what every method has."""
    for f in fields(cls):
        if f.default is MISSING and f.default_factory is MISSING:
            raise UserError(f"{file}: {f.name} of {cls.__name__} has no default", f"for instance {f.name}: float = 1.0")
    if not hasattr(cls, "needs"):
        raise UserError(
            f"{file}: {cls.__name__} does not say what it needs",
            f'for instance needs: ClassVar[frozenset[str]] = frozenset({{"pairs"}}) ({HOW})',
        )
    if not any("__call__" in vars(base) for base in cls.__mro__):
        raise UserError(f"{file}: {cls.__name__} cannot be called", f"it lacks __call__(self, responses) ({HOW})")
    check_units(file)


def default_settings(name: str) -> dict[str, Any]:
    """The settings of a method as its recipe file states them, without its name."""
    return {
        f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(loss_class(name))
    }


def semantics(name: str) -> int:
    """The version of a method's numbers: 1, or what its dataclass says in `semantics: ClassVar[int]`.

    A release in which the same batch and settings give another loss or gradient has a higher one;
    tests/losses/semantics.json holds the numbers of each. Raises: as `loss_class`.
    """
    return int(getattr(loss_class(name), "semantics", 1))


def make_loss(settings: Mapping[str, Any]) -> Loss:
    """The loss that {"name": "simpo", "beta": 2.5, ...} describes.

    Raises: UserError for an unknown method, an unknown setting, or a value that the method refuses.
    """
    values = dict(settings)
    name = values.pop("name", "")
    cls = loss_class(name)
    known = {f.name for f in fields(cls)}
    for key in values:
        if key not in known:
            raise UserError(f"loss.{key}: {name} has no such setting", did_you_mean(key, known))
    try:
        loss: Loss = cls(**values)
    except ValueError as error:
        raise UserError(f"loss={name}: {error}") from None
    for need in sorted(loss.needs - NEEDS.keys()):
        raise UserError(f"loss={name}: its `needs` name {need!r}, which there is not", did_you_mean(need, NEEDS))
    return loss
