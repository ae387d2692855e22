"""`prefopt losses`: the methods as their own files describe them."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from inspect import cleandoc
from typing import Any

from rich.console import Console
from rich.table import Table

from prefopt.console import PLAIN
from prefopt.losses import loss_class, make_loss, names


def show_losses() -> int:
    """Print a table of all methods; 0."""
    table = Table("loss=", "needs", "what it is", box=None, pad_edge=False, header_style="bold")
    for name in names():
        needs = ", ".join(sorted(make_loss({"name": name}).needs)) or "responses"
        table.add_row(name, needs, _document(name).splitlines()[0])
    console = Console()
    console.print(table)
    console.print("\nprefopt losses NAME prints a method's equation, settings and deviations.", **PLAIN)
    return 0


def show_loss(name: str) -> int:
    """Print one method's equation, source, settings and defaults; 0.

    Raises: UserError where there is no such method.
    """
    console = Console()
    console.print(_document(name), **PLAIN)
    console.print("\nSettings and defaults:", style="bold", **PLAIN)
    for f in fields(loss_class(name)):
        console.print(f"    loss.{f.name}={_default(f)}", **PLAIN)
    needs = ", ".join(sorted(make_loss({"name": name}).needs)) or "nothing but a response"
    console.print(f"Needs: {needs}.", **PLAIN)
    return 0


def _default(setting: Field[Any]) -> Any:
    if setting.default_factory is not MISSING:
        return setting.default_factory()
    return "(required)" if setting.default is MISSING else setting.default


def _document(name: str) -> str:
    document = loss_class(name).__doc__
    assert document is not None, f"prefopt/losses/{name}.py describes its method in the dataclass's docstring"
    return cleandoc(document)
