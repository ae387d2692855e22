"""Columns beside a format's own: read where the method asks for them, else left alone whatever they hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from prefopt.data.format_pairs import Columns, Values
from prefopt.data.messages import as_response
from prefopt.data.rows import Unusable, as_flag, as_list, as_number, label_of, present
from prefopt.records import Candidate

Candidates = tuple[Candidate, ...]
Holds = Literal["pair", "list", "one"]
"""What a row of a format has: chosen and rejected, a list of responses, or one."""


def target_of(row: Values, column: str) -> str:
    """The response to imitate beside the others. Raises: Unusable where the row has none."""
    return as_response(present(row, column), column)


def with_label(candidate: Candidate, row: Values) -> Candidate:
    """A lone response with its label, where the row has one."""
    value = label_of(row)
    return candidate if value is None else replace(candidate, label=as_flag(value, "label"))


def with_score(candidate: Candidate, row: Values) -> Candidate:
    """A lone response with its score, where the row has one."""
    value = row.get("score")
    return candidate if value is None else replace(candidate, score=as_number(value, "score"))


def labelled_by_score(candidate: Candidate) -> Candidate:
    """A lone response whose score is its label too: 1 is desirable, any other number is not."""
    return replace(candidate, label=candidate.score == 1)


def with_pair_margin(candidates: Candidates, row: Values) -> Candidates:
    """A pair with TRL's column `margin`: by how much chosen is better, so that number for chosen and 0 for rejected."""
    chosen, rejected = candidates
    return replace(chosen, margins=(as_number(present(row, "margin"), "margin"),)), replace(rejected, margins=(0.0,))


def margin_columns(name: str, holds: Holds, columns: Columns) -> tuple[str, ...]:
    """The columns that hold an objective's rewards: none where the file lacks them."""
    wanted = {"pair": (f"{name}_chosen", f"{name}_rejected"), "list": (name,), "one": ()}[holds]
    return wanted if columns.issuperset(wanted) else ()


def with_margins(candidates: Candidates, row: Values, names: tuple[str, ...], holds: Holds) -> Candidates:
    """Responses with the rewards of the named objectives, in that order."""
    by_objective = [_rewards(row, name, holds, len(candidates)) for name in names]
    return tuple(replace(c, margins=rewards) for c, rewards in zip(candidates, zip(*by_objective), strict=True))


def _rewards(row: Values, name: str, holds: Holds, count: int) -> list[float]:
    if holds == "pair":
        return [as_number(present(row, column), column) for column in (f"{name}_chosen", f"{name}_rejected")]
    values = [as_number(value, name) for value in as_list(present(row, name), name)]
    if len(values) != count:
        raise Unusable(f"{name} is not as long as the responses", f"{len(values)} and {count}")
    return values
