"""The class of a file in a package of prefopt, where the file may be somebody's own: faults in it are sentences.

A method is a file in `prefopt/losses`, a stage of pairs one in `prefopt/pairs/score`, and so on: `__all__` of the file
names its one dataclass. Whoever writes such a file makes mistakes in it, which are no bugs of prefopt's.
"""

from __future__ import annotations

import linecache
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from traceback import extract_tb

from prefopt.errors import UserError


def class_of_file(package: str, name: str) -> type:
    """The dataclass that `__all__` of the module `package.name` names. The caller has found the name among the files.

    Raises: UserError with file and line where the file cannot be imported, or `__all__` does not name one dataclass.
    """
    file = Path(import_module(package).__path__[0], f"{name}.py")
    try:
        module = import_module(f"{package}.{name}")
    except SyntaxError as error:
        raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}", _shown(error.text or "")) from None
    except UserError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(file)]
        if not lines:  # it was found, and fell over before a line of it ran
            raise
        said = " ".join(str(error).split())
        raise UserError(
            f"{file}, line {lines[-1]}: {type(error).__name__}: {said}",
            _shown(linecache.getline(str(file), lines[-1] or 0)),
        ) from error
    listed = getattr(module, "__all__", None)
    if not isinstance(listed, (list, tuple)) or len(listed) != 1:
        has = "there is none" if listed is None else f"it has {listed!r}"
        raise UserError(f"{file}: __all__ names the one dataclass of the file, and {has}", '__all__ = ["NAME"]')
    cls = getattr(module, listed[0], None)
    if cls is None:
        ours = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise UserError(
            f"{file}: __all__ names {listed[0]!r}, which the file does not define",
            f"it defines {', '.join(ours)}" if ours else "",
        )
    if not isinstance(cls, type) or not is_dataclass(cls):
        raise UserError(f"{file}: {listed[0]} is not a dataclass", "put @dataclass(frozen=True) above the class")
    return cls


def _shown(line: str) -> str:
    return f"the line is: {line.strip()}" if line.strip() else ""
