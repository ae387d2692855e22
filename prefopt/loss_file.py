"""The file of a method: where it belongs, and what can be seen in it before it is called.

Methods are found in the folder `prefopt/losses` of the prefopt that runs and nowhere else: nothing of the working
directory is executed because of its name. Somebody whose file lies elsewhere hears where it belongs.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from prefopt.batch import Unit
from prefopt.errors import UserError, did_you_mean

HOW = "docs/howto/loss.md"
_ELSEWHERE = ("prefopt/losses", "losses", "loss", "recipes/loss", "recipes/losses", "")
"""Folders of a working directory in which people put a method."""


def place_of(name: str, folder: Path) -> str:
    """Where the file of a method of one's own belongs. folder: `prefopt/losses` of the prefopt that runs."""
    if {"site-packages", "dist-packages"} & set(folder.parts):
        return f"prefopt/losses/{name}.py in a clone of prefopt that is installed by make install ({HOW})"
    return f"{folder / name}.py ({HOW})"


def misplaced(name: str, folder: Path) -> str:
    """A hint where the working directory has a method's file in which nobody looks; empty where it has none.

    name: of the method, or the path that was given in its place. folder: as of `place_of`.
    """
    stem = Path(name).name.removesuffix(".py")
    if not stem.isidentifier():
        return ""
    for file in (Path(name), *(Path(other, f"{stem}.py") for other in _ELSEWHERE)):
        if file.suffix != ".py" or not file.is_file() or file.resolve().parent == folder.resolve():
            continue
        if file.parent == Path("prefopt", "losses"):
            return f"{file} is not of the prefopt that runs ({folder.parent}): pip install -e . in that clone"
        return f"{file} is not looked at: a method's file is {place_of(stem, folder)}"
    return ""


@cache
def check_units(file: Path) -> None:
    """Refuse a method that counts in a unit that there is not, before anything is scored or trained.

    Raises: UserError with file and line, and the units that there are.
    """
    for node in ast.walk(ast.parse(file.read_bytes())):
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
            continue
        if node.value.id == "Unit" and not hasattr(Unit, node.attr):
            names = ", ".join(unit.name for unit in Unit)
            near = did_you_mean(node.attr, Unit.__members__)
            hint = near if near.startswith("did") else ""
            raise UserError(f"{file}, line {node.lineno}: there is no Unit.{node.attr}, there are {names}", hint)
