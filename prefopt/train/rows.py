"""The encoded data as a rank uses it: rows with their cached columns, cut into the batches of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from prefopt.batch import Batch, Encoded, MicroBatch
from prefopt.data.plan import Cut, cut
from prefopt.pack import pack
from prefopt.train.mismatched import MismatchedSet
from prefopt.train.work import count_work

if TYPE_CHECKING:
    from prefopt.data.encoded_set import EncodedSet


class Rows:
    """An encoded set with the settings it is batched by and, once scored, its cached columns.

    costs [E]: tokens on the axis. entries [E]: scores that attention computes, places times the places they see.
    work [E]: what a row costs to compute, in thousandths of the work of a token. counts [E]: how much of
    `train.batch_size` a row fills: its pairs, its labelled responses, or one. unit: what that is called. baseline: the
    responses to other prompts that a method with need "kl" measures, or None.

    tokens_per_entry: how many tokens' work one score of attention is (`work.tokens_per_entry`).
    """

    def __init__(
        self,
        data: EncodedSet | MismatchedSet,
        needs: frozenset[str],
        share_prompts: bool,
        tokens_per_entry: float = 0.0,
    ) -> None:
        self.data = data
        self.name = data.name
        self.share_prompts = share_prompts
        self.prompt_logps = "prompt_logps" in needs
        self.whole_responses = "rewards" in needs
        self._first_response = data.response_offsets
        on_axis = data.response_lengths - (0 if self.whole_responses else 1)
        self.costs, self.entries = count_work(data.prompt_lengths, on_axis, data.response_offsets, share_prompts)
        # Whole numbers: their sums are the same in any order, and so is a cut by them.
        self.work = 1000 * self.costs + np.rint(1000 * tokens_per_entry * self.entries).astype(np.int64)
        self.unit, self.counts = _counted(data, needs)
        self._reference: np.ndarray | None = None
        self._reference_tokens: np.ndarray | None = None
        self._margins: np.ndarray | None = None
        self.baseline: Rows | None = None
        if "kl" in needs and not isinstance(data, MismatchedSet):
            self.baseline = Rows(MismatchedSet(data), frozenset(), share_prompts, tokens_per_entry)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def num_responses(self) -> int:
        """All responses of all rows."""
        return int(self._first_response[-1])

    def responses_of(self, place: int) -> slice:
        """Where a row's responses lie in a column."""
        return slice(int(self._first_response[place]), int(self._first_response[place + 1]))

    @cached_property
    def token_offsets(self) -> np.ndarray:
        """Where the tokens of each response begin in a column of one number per token, and the end: [responses + 1]."""
        return np.concatenate(([0], np.cumsum(self.data.response_lengths))).astype(np.int64)

    @property
    def reference(self) -> np.ndarray:
        """[responses] reference log-probabilities, once they are attached."""
        if self._reference is None:
            raise ValueError(f"{self.name} has no reference column")
        return self._reference

    def set_reference(self, column: np.ndarray) -> None:
        """Attach reference log-probabilities, one float64 per response in the order of the rows."""
        if column.shape != (self.num_responses,):
            raise ValueError(f"a reference column of {self.num_responses} numbers is needed, not {column.shape}")
        self._reference = column

    def set_reference_tokens(self, column: np.ndarray) -> None:
        """Attach reference log-probabilities of every response token, and the sums that follow from them."""
        offsets = self.token_offsets
        if column.shape != (offsets[-1],):
            raise ValueError(f"a reference column of {offsets[-1]} numbers is needed, not {column.shape}")
        self._reference_tokens = column
        self._reference = np.add.reduceat(column, offsets[:-1])

    def set_margins(self, columns: np.ndarray) -> None:
        """Attach margin rewards: [responses, objectives] float64; they take the place of those in the data."""
        if columns.ndim != 2 or columns.shape[0] != self.num_responses:
            raise ValueError(f"margins for {self.num_responses} responses are needed, not {columns.shape}")
        self._margins = columns

    def __getitem__(self, place: int) -> Encoded:
        row = self.data[place]
        own = self.responses_of(place)
        if self._margins is not None:
            row = replace(row, margins=self._margins[own].tolist())
        if self._reference is not None:
            row = replace(row, reference_logps=self._reference[own].tolist())
        if self._reference_tokens is not None:
            offsets = self.token_offsets[own.start : own.stop + 1]
            tokens = [self._reference_tokens[a:b].tolist() for a, b in pairwise(offsets)]
            row = replace(row, reference_token_logps=tokens)
        return row

    def micro_batches(self, dealt: Cut, rank: int) -> list[MicroBatch]:
        """This rank's share of a cut; the spare row where it has nothing left."""
        shares = dealt.micro_batches[rank]
        return [MicroBatch(self.pack(places), True) if places else self.spare(dealt) for places in shares]

    def spare(self, dealt: Cut) -> MicroBatch:
        """The cheapest row of the step, with weight zero: for a rank that only keeps the others company."""
        everything = [e for per_rank in dealt.micro_batches for micro in per_rank for e in micro]
        place = min(everything, key=lambda e: (int(self.costs[e]), e))
        return MicroBatch(self.pack([place]), False)

    def pack(self, places: Sequence[int]) -> Batch:
        """Some rows as one batch on the CPU."""
        examples = [self[place] for place in places]
        return pack(examples, self.share_prompts, self.prompt_logps, self.whole_responses)

    def padded_places(self, places: Sequence[int]) -> int:
        """Places that some rows of repeated prompts take where each response is padded to the longest."""
        responses = [p for place in places for p in range(*self.responses_of(place).indices(self.num_responses))]
        return len(responses) * int(self._sequence_lengths[responses].max())

    @cached_property
    def _sequence_lengths(self) -> np.ndarray:
        """[R] places of a prompt and one response."""
        prompts = np.repeat(self.data.prompt_lengths, np.diff(self._first_response))
        return prompts + self.data.response_lengths - (0 if self.whole_responses else 1)

    def cut(self, places: np.ndarray, num_ranks: int, tokens_per_micro_batch: int) -> Cut:
        """Some rows as micro-batches of equal work for every rank; see `prefopt.data.plan.cut`."""
        return cut(places, self.costs, num_ranks, tokens_per_micro_batch, self.work)

    def sweep(self, num_ranks: int, tokens_per_micro_batch: int, rows_at_once: int = 4096) -> list[Cut]:
        """Cuts that cover every row once, in order, for scoring and evaluation."""
        places = np.arange(len(self))
        return [
            self.cut(places[start : start + rows_at_once], num_ranks, tokens_per_micro_batch)
            for start in range(0, len(self), rows_at_once)
        ]


def _counted(data: EncodedSet | MismatchedSet, needs: frozenset[str]) -> tuple[str, np.ndarray]:
    """What `train.batch_size` counts with these needs, and how many of it each row has: [E]."""
    if needs & {"labels", "comparisons"}:  # a comparison is a response of its own; the row keeps no pair
        return "responses", np.diff(data.response_offsets)
    if "pairs" in needs:
        return "pairs", data.num_pairs
    return "prompts" if "ranking" in needs else "responses", np.ones(len(data), dtype=np.int64)
