"""How lines are printed, and whether what is printed may be written over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN: Mapping[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}
"""For `Console.print`: a line as it is, whatever brackets a path holds, and no break that a copy would take along."""

NARROW = 72
"""Columns below which a table may have no room for a word in each column."""


def is_live(console: Console) -> bool:
    """Whether somebody looks at a terminal on which a line can be written over: a bar is drawn there and nowhere else.

    rich calls a pipe a terminal under FORCE_COLOR, and a terminal that keeps a log (`CI`) or knows no control
    characters (`TERM=dumb`) a terminal too: a bar would fill the one and not show on the other.
    """
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    try:
        is_tty = console.file.isatty()
    except ValueError:  # closed
        return False
    return is_tty and console.is_interactive and not console.is_dumb_terminal and not in_ci


def print_table(console: Console, table: Table) -> None:
    """A table; on a narrow terminal in which its longest words have no room, a paragraph for each of its rows."""
    from rich.measure import Measurement

    wide = console.options.update(max_width=10_000)
    if console.width >= NARROW or Measurement.get(console, wide, table).minimum <= console.width:
        console.print(table)
        return
    if table.title:
        console.print(table.title, style="bold")
    headings = [" ".join(str(column.header).split()) for column in table.columns]
    for row in zip(*(list(column.cells) for column in table.columns), strict=True):
        console.print(row[0], style="bold", highlight=False)
        for heading, cell in zip(headings[1:], row[1:], strict=True):
            if str(cell):
                console.print(f"  {heading}: {cell}", highlight=False, markup=isinstance(cell, str))
    if table.caption:
        console.print(table.caption, style="italic")
