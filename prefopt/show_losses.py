"""`prefopt losses`: the methods as their own files describe them."""

from __future__ import annotations

import re
from inspect import cleandoc, getsource
from typing import Any

from rich.console import Console
from rich.table import Table

from prefopt.batch import Unit
from prefopt.console import PLAIN, print_table
from prefopt.losses import default_settings, loss_class, make_loss, names, semantics
from prefopt.needs import LIVE, NEEDS

REFERENCE = frozenset({"reference", "reference_tokens", "kl"}) | LIVE
"""Needs that a reference model serves."""
_AUTHORS = r"[A-Z][\w'-]+(?: et al\.| and [A-Z]\w+)? (?:19|20)\d\d|CPO_SIMPO, 2024"
_PAPER = re.compile(rf"({_AUTHORS})(?:[^();]*?arXiv\s+(\d{{4}}\.\d{{5}}))?")


def show_losses() -> int:
    """Print a table of all methods; 0."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("loss=", no_wrap=True)
    for heading in ("needs", "reference", "means over", "paper", "what it is"):
        table.add_column(heading)
    for name in names():
        needs = make_loss({"name": name}).needs
        of_data = ", ".join(sorted(needs - REFERENCE)) or "responses"
        table.add_row(name, of_data, _reference(needs), _units(name), _paper(name), _document(name).splitlines()[0])
    console = Console()
    print_table(console, table)
    console.print("\nprefopt losses NAME prints a method's equation, settings, needs and deviations.", **PLAIN)
    return 0


def show_loss(name: str) -> int:
    """Print one method's equation, source, settings, defaults and needs; 0.

    Raises: UserError where there is no such method.
    """
    console = Console()
    console.print(_document(name), **PLAIN)
    console.print("\nSettings and defaults:", style="bold", **PLAIN)
    settings = default_settings(name)
    for key, value in settings.items():
        console.print(f"    loss.{key}={_as_yaml(value)}", **PLAIN)
    if not settings:
        console.print("    none", **PLAIN)
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
