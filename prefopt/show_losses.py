"""`prefopt losses`: the methods as their own files describe them."""

from __future__ import annotations

from dataclasses import MISSING, fields
from inspect import cleandoc

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
        console.print(f"    loss.{f.name}={'(required)' if f.default is MISSING else f.default}", **PLAIN)
    needs = ", ".join(sorted(make_loss({"name": name}).needs)) or "nothing but a response"
    console.print(f"Needs: {needs}.", **PLAIN)
    return 0


def _document(name: str) -> str:
    document = loss_class(name).__doc__
    assert document is not None, f"prefopt/losses/{name}.py describes its method in the dataclass's docstring"
    return cleandoc(document)
