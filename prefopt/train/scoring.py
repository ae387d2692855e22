"""Numbers that a model gives to rows, without gradients, over all ranks: one per response or one per token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from prefopt.batch import Responses
from prefopt.model.forward import Forward, respond
from prefopt.train.engine import Engine
from prefopt.train.rows import Rows

ROWS_AT_ONCE = 4096
"""Rows that are cut, and kept, at once."""


@dataclass(frozen=True)
class Measure:
    """What is wanted of each row.

    values_of: the numbers of a batch, in the order of its responses. offsets [responses + 1]: where those of each
    response of `rows` begin in a column, and the end. tokens [responses]: how many tokens a response's numbers sum up.
    """

    rows: Rows
    values_of: Callable[[Responses], torch.Tensor]
    offsets: np.ndarray
    tokens: np.ndarray

    @cached_property
    def row_offsets(self) -> np.ndarray:
        """Where the numbers of each row begin in a column, and the end: [rows + 1]."""
        return self.offsets[self.rows.data.response_offsets]


def sequence_logps(rows: Rows) -> Measure:
    """The log-probability of every response, in nats."""
    return Measure(rows, lambda r: r.logps, np.arange(rows.num_responses + 1), rows.data.response_lengths)


def token_logps(rows: Rows) -> Measure:
    """The log-probability of every response token, in nats."""
    return Measure(rows, lambda r: r.token_logps, rows.token_offsets, rows.data.response_lengths)


def rewards(rows: Rows) -> Measure:
    """What a scalar head gives for every response."""

    def values_of(responses: Responses) -> torch.Tensor:
        assert responses.rewards is not None, "the model has a scalar head"
        return responses.rewards

    count = rows.num_responses
    return Measure(rows, values_of, np.arange(count + 1), np.ones(count, dtype=np.int64))


def score(engine: Engine, forward: Forward, measure: Measure, places: np.ndarray | None = None) -> np.ndarray:
    """The numbers of the rows at `places`, ascending, or of all rows, one after the other: float64; all ranks call."""
    rows = measure.rows
    places = np.arange(len(rows)) if places is None else places
    lengths = np.diff(measure.row_offsets)
    starts = np.concatenate(([0], np.cumsum(lengths[places])))
    column = torch.zeros(int(starts[-1]), dtype=torch.float64, device=engine.device)
    budget = engine.tokens_per_micro_batch  # a multiple of it was measured to be no faster on CPU
    with torch.no_grad():
        for first in range(0, len(places), ROWS_AT_ONCE):
            dealt = rows.cut(places[first : first + ROWS_AT_ONCE], engine.world_size, budget)
            shares = dealt.micro_batches[engine.rank]
            for share, micro_batch in zip(shares, rows.micro_batches(dealt, engine.rank), strict=True):
                values = measure.values_of(respond(forward, micro_batch.batch.to(engine.device))).double()
                taken = 0
                for place in share:  # empty where this rank only keeps the others company
                    start, length = int(starts[np.searchsorted(places, place)]), int(lengths[place])
                    column[start : start + length] = values[taken : taken + length]
                    taken += length
    return engine.all_reduce(column).cpu().numpy()
