"""`prefopt losses`: the methods as their own files describe them."""

from __future__ import annotations

import re
from inspect import cleandoc, getsource
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from prefopt.batch import Unit
from prefopt.console import NARROW, PLAIN, print_table
from prefopt.errors import UserError
from prefopt.losses import default_settings, loss_class, make_loss, names, semantics
from prefopt.needs import LIVE, NEEDS
from prefopt.recipe_files import choices, search_path

REFERENCE = frozenset({"reference", "reference_tokens", "kl"}) | LIVE
"""Needs that a reference model serves."""
_WIDE = 120
"""Columns of a terminal in which a method has room for all that is said of it."""
_AUTHORS = r"[A-Z][\w'-]+(?: et al\.| and [A-Z]\w+)? (?:19|20)\d\d|CPO_SIMPO, 2024"
_PAPER = re.compile(rf"({_AUTHORS})(?:[^();]*?arXiv\s+(\d{{4}}\.\d{{5}}))?")


def show_losses() -> int:
    """Print a table of all methods; 0."""
    console = Console()
    is_cut = NARROW <= console.width < _WIDE
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("loss=", no_wrap=True)
    for heading in ("what it is",) if is_cut else ("needs", "reference", "means over", "paper", "what it is"):
        table.add_column(heading)
    for name in names():
        needs = make_loss({"name": name}).needs
        of_data = ", ".join(sorted(needs - REFERENCE)) or "responses"
        cells = of_data, _reference(needs), _units(name), _paper(name), _document(name).splitlines()[0]
        table.add_row(name, *(cells[-1:] if is_cut else cells))
    print_table(console, table)
    if is_cut:
        console.print(f"\n{_WIDE} columns have room for its needs, reference, means and paper, too.", **PLAIN)
    console.print("\nprefopt losses NAME prints a method's equation, settings, needs and deviations.", **PLAIN)
    return 0


def show_loss(name: str) -> int:
    """Print one method's equation, source, settings in force, and needs; 0.

    Raises: UserError where there is no such method, or its recipe file is not YAML.
    """
    console = Console()
    console.print(_document(name), **PLAIN)
    console.print("\nSettings and defaults:", style="bold", **PLAIN)
    for line in _settings(name) or ["none"]:
        console.print(f"    {line}", **PLAIN)
    console.print("\nNeeds:", style="bold", **PLAIN)
    needs = make_loss({"name": name}).needs
    for need in NEEDS:
        if need in needs:
            console.print(f"    {need}: {NEEDS[need]}", **PLAIN)
    if not needs:
        console.print("    nothing but a response", **PLAIN)
    console.print(f"Means over: {_units(name)}, in the whole optimiser step.", **PLAIN)
    console.print(f"Semantics: version {semantics(name)}; a release that changes a number has a higher one.", **PLAIN)
    return 0


def _settings(name: str) -> list[str]:
    """A line for each setting with the value that `loss=NAME` gives it: its recipe file wins over its class."""
    file = choices("loss", search_path()).get(name)
    stated = {} if file is None else _read(file)
    lines = []
    for key, default in default_settings(name).items():
        value = stated.get(key, default)
        if isinstance(default, float) and isinstance(
            value, str
        ):  # 1e-6, which YAML 1.1 takes for text and Hydra does not
            value = float(value) if re.fullmatch(r"[-+]?[\d.]+[eE][-+]?\d+", value) else value
        line = f"loss.{key}={_as_yaml(value)}"
        if value != default:
            line += f"   (of {_near(file)}, which is in force; the class says {_as_yaml(default)})"
        elif file is not None and key not in stated:
            line += f"   (from the class: {_near(file)} has no {key})"
        lines.append(line)
    if file is None:
        lines.append(f"not to be chosen yet: loss={name} needs recipes/loss/{name}.yaml with these keys")
    return lines


def _read(file: Path) -> dict[str, Any]:
    """The keys of a method's recipe file. Raises: UserError where it is not keys and values in YAML."""
    import yaml

    try:
        stated = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(stated, dict):
        raise UserError(f"{file}: expected keys and values", f"name: {file.stem}, and a line for each setting")
    return stated


def _near(file: Path | None) -> str:
    """A file as seen from the working directory, where it lies in it."""
    assert file is not None
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


def _reference(needs: frozenset[str]) -> str:
    return "live" if needs & LIVE else "cached" if needs & REFERENCE else "-"


def _units(name: str) -> str:
    """What the terms of a method are counted in: the units that its file names, or its parts' files."""
    source = getsource(loss_class(name))
    found = [unit.value for unit in Unit if f"Unit.{unit.name}," in source or f"Unit.{unit.name})" in source]
    return ", ".join(found) or "its parts' units"


def _paper(name: str) -> str:
    """The first source that the method's docstring names."""
    found = _PAPER.search(_document(name))
    if found is None:
        return "-"
    return found[1] + (f", {found[2]}" if found[2] else "")


def _as_yaml(value: Any) -> str:
    """As it is written on the command line and in a recipe: null, not None."""
    import yaml

    return yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=10_000).strip()[1:-1]


def _document(name: str) -> str:
    document = loss_class(name).__doc__
    assert document is not None, f"prefopt/losses/{name}.py describes its method in the dataclass's docstring"
    return cleandoc(document)
