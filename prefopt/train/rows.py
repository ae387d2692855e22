"""The encoded data as a rank uses it: rows with their cached columns, cut into the batches of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from prefopt.batch import Encoded, MicroBatch
from prefopt.data.plan import Cut, cut
from prefopt.pack import pack

if TYPE_CHECKING:
    from prefopt.data.encoded_set import EncodedSet


class Rows:
    """An encoded set with the settings it is batched by and, once scored, its reference column.

    costs [E]: tokens on the axis. counts [E]: how much of `train.batch_size` a row fills: pairs, or one response.
    """

    def __init__(self, data: EncodedSet, needs: frozenset[str], share_prompts: bool) -> None:
        self.data = data
        self.name = data.name
        self.share_prompts = share_prompts
        self.prompt_logps = "prompt_logps" in needs
        self._first_response = data.response_offsets
        num_responses = np.diff(data.response_offsets)
        tokens = np.diff(np.concatenate(([0], np.cumsum(data.response_lengths)))[data.response_offsets])
        self.costs = (1 if share_prompts else num_responses) * data.prompt_lengths + tokens - num_responses
        self.counts = data.num_pairs if "pairs" in needs else np.ones(len(data), dtype=np.int64)
        self._reference: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.data)

    @staticmethod
    def longest(data: EncodedSet) -> int:
        """Tokens of the longest prompt with one of its responses."""
        prompts = np.repeat(data.prompt_lengths, np.diff(data.response_offsets))
        return int((prompts + data.response_lengths).max(initial=0))

    @property
    def num_responses(self) -> int:
        """All responses of all rows."""
        return int(self._first_response[-1])

    def responses_of(self, place: int) -> slice:
        """Where a row's responses lie in a column."""
        return slice(int(self._first_response[place]), int(self._first_response[place + 1]))

    def set_reference(self, column: np.ndarray) -> None:
        """Attach reference log-probabilities, one float64 per response in the order of the rows."""
        if column.shape != (self.num_responses,):
            raise ValueError(f"a reference column of {self.num_responses} numbers is needed, not {column.shape}")
        self._reference = column

    def __getitem__(self, place: int) -> Encoded:
        row = self.data[place]
        if self._reference is None:
            return row
        return replace(row, reference_logps=self._reference[self.responses_of(place)].tolist())

    def micro_batches(self, dealt: Cut, rank: int) -> list[MicroBatch]:
        """This rank's share of a cut. Where it has nothing left, the cheapest row of the step with weight zero."""
        everything = [e for per_rank in dealt.micro_batches for micro in per_rank for e in micro]
        spare = min(everything, key=lambda e: (int(self.costs[e]), e))
        return [self._micro_batch(places or (spare,), bool(places)) for places in dealt.micro_batches[rank]]

    def _micro_batch(self, places: Sequence[int], real: bool) -> MicroBatch:
        return MicroBatch(pack([self[p] for p in places], self.share_prompts, self.prompt_logps), real)

    def sweep(self, num_ranks: int, tokens_per_micro_batch: int, rows_at_once: int = 4096) -> list[Cut]:
        """Cuts that cover every row once, in order, for scoring and evaluation."""
        places = np.arange(len(self))
        return [
            cut(places[start : start + rows_at_once], self.costs, num_ranks, tokens_per_micro_batch)
            for start in range(0, len(self), rows_at_once)
        ]
