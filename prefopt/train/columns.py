"""Everything a method compares with, put beside the data before the first update: cached columns, a live reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from prefopt.train.engine import Engine
from prefopt.train.margins import attach_margins
from prefopt.train.reference import attach_reference
from prefopt.train.rows import Rows
from prefopt.train.work import tokens_per_entry

if TYPE_CHECKING:
    from prefopt.data.encoded_set import EncodedSet


def make_rows(engine: Engine, needs: frozenset[str], sets: Iterable[EncodedSet]) -> dict[str, Rows]:
    """The sets by name, as the engine's policy takes them; without columns that must be scored first."""
    worth = tokens_per_entry(engine.policy)
    return {data.name: Rows(data, needs, engine.policy.shares_prompts, worth) for data in sets}


def attach_columns(
    engine: Engine,
    needs: frozenset[str],
    sets: Iterable[Rows],
    cache: Path,
    longest: int,
    say: Callable[[str], None],
) -> int:
    """Give every set the columns that `needs` ask for; returns how many rows the reference had to score.

    Every rank must call.

    Call before the first update and before a checkpoint is loaded. longest: tokens of the longest sequence.

    Raises: UserError or RunError for models that cannot serve and numbers that are not finite.
    """
    scored = 0
    for rows in sets:
        if "reference" in needs:
            scored += attach_reference(engine, needs, rows, cache, longest, say)
        if "margins" in needs:
            attach_margins(engine, rows, cache, longest, say)
    return scored
