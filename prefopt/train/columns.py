"""Everything a method compares with, put beside the data before the first update: cached columns, a live reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from prefopt.train.engine import Engine
from prefopt.train.live_reference import attach_live_reference
from prefopt.train.margins import attach_margins
from prefopt.train.reference import attach_reference
from prefopt.train.rows import Rows

if TYPE_CHECKING:
    from prefopt.data.encoded_set import EncodedSet


def rows_with_columns(
    engine: Engine,
    needs: frozenset[str],
    sets: Iterable[EncodedSet],
    cache: Path,
    longest: int,
    say: Callable[[str], None],
) -> tuple[dict[str, Rows], int]:
    """The sets by name, with the columns that `needs` ask for, and how many rows the reference had to score for them.

    Every rank must call.

    Call before the first update and before a checkpoint is loaded. longest: tokens of the longest sequence.

    Raises: UserError or RunError for models that cannot serve and numbers that are not finite.
    """
    found = {data.name: Rows(data, needs, engine.policy.shares_prompts) for data in sets}
    scored = 0
    for rows in found.values():
        if "reference" in needs:
            scored += attach_reference(engine, needs, rows, cache, longest, say)
        if "margins" in needs:
            attach_margins(engine, rows, cache, longest, say)
    attach_live_reference(engine, needs, longest, say)
    return found, scored
