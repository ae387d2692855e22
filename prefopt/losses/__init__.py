"""The methods. One file each: equation, paper, settings, and the few lines that compute it.

A method is found by its file's name: `loss=simpo` is the one dataclass that `prefopt/losses/simpo.py` lists in
`__all__`.
Nothing here imports torch until a loss is called, so that settings can be checked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from prefopt.batch import Loss
from prefopt.errors import UserError, did_you_mean
from prefopt.needs import NEEDS

_NOT_METHODS = {"numerics", "terms"}


def names() -> list[str]:
    """Every method, sorted."""
    return sorted(m.name for m in iter_modules(__path__) if m.name not in _NOT_METHODS)


def loss_class(name: str) -> type:
    """The dataclass of a method.

    Raises: UserError where there is no such method.
    """
    if name not in names():
        raise UserError(f"loss: there is no method {name!r}", _in_another_clone(name) or did_you_mean(name, names()))
    module = import_module(f"{__name__}.{name}")
    (class_name,) = module.__all__
    return getattr(module, class_name)


def _in_another_clone(name: str) -> str:
    """A hint where the working directory has the method's file and is not the prefopt that runs; else ""."""
    file = Path("prefopt", "losses", f"{name}.py")
    if not name.isidentifier() or not file.is_file() or file.parent.resolve() == Path(__path__[0]).resolve():
        return ""
    return f"{file} is not of the prefopt that runs ({Path(__path__[0]).parent}): pip install -e . in that clone"


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
