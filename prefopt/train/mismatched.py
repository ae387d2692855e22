"""Responses to other prompts: what KTO's baseline is measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from prefopt.batch import Encoded
from prefopt.errors import UserError

if TYPE_CHECKING:
    from prefopt.data.encoded_set import EncodedSet


class MismatchedSet(Sequence[Encoded]):
    """Each prompt of a data set with the responses of the next row, in the order of the data, that has another prompt.

    A pure function of the data, so that the reference's log-probabilities of these rows are columns like any other and
    the baseline of a step does not depend on which rows shared a micro-batch. A response is cut where prompt and
    response together would be longer than the longest row of the data, so that no memory is needed that training does
    not need.
    """

    def __init__(self, data: EncodedSet) -> None:
        self.data = data
        self.name = f"{data.name} (responses to other prompts)"
        self.sources = data.sources
        self.prompt_lengths = data.prompt_lengths
        self.num_pairs = np.zeros(len(data), dtype=np.int64)
        self._donors = _donors(data.prompt_hashes, data.name)
        self._longest = longest_row(data)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Encoded:  # type: ignore[override]  # nobody slices it
        own, donor = self.data[index], self.data[int(self._donors[index])]
        room = self._longest - len(own.prompt)
        responses = [response[:room] for response in donor.responses]
        return Encoded(f"{own.id} answered by {donor.id}", own.index, own.prompt, responses, [], 0)

    def prompt_text(self, index: int) -> str:
        """As of the data set."""
        return self.data.prompt_text(index)

    def chosen_text(self, index: int) -> str:
        """As of the data set: of the prompt's own row."""
        return self.data.chosen_text(index)

    @cached_property
    def response_offsets(self) -> np.ndarray:
        counts = np.diff(self.data.response_offsets)[self._donors]
        return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)

    @cached_property
    def response_lengths(self) -> np.ndarray:
        counts = np.diff(self.response_offsets)
        firsts = self.data.response_offsets[self._donors]
        within = np.arange(counts.sum()) - np.repeat(self.response_offsets[:-1], counts)
        lengths = self.data.response_lengths[np.repeat(firsts, counts) + within]
        return np.minimum(lengths, np.repeat(self._longest - self.prompt_lengths, counts))

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"mismatched {self.data.fingerprint}".encode()).hexdigest()


def longest_row(data: EncodedSet) -> int:
    """Tokens of the longest prompt with one of its responses."""
    prompts = np.repeat(data.prompt_lengths, np.diff(data.response_offsets))
    return int((prompts + data.response_lengths).max(initial=0))


def check_prompts_differ(prompt_hashes: np.ndarray, name: str) -> None:
    """Refuse rows without a response to another prompt.

    Raises: UserError where all prompts are the same.
    """
    if len(prompt_hashes) and (prompt_hashes == prompt_hashes[0]).all():
        raise UserError(
            f"{name}: all {len(prompt_hashes)} rows have the same prompt, so no response answers another one",
            "the method's baseline needs at least two prompts; use other data or another loss",
        )


def _donors(prompt_hashes: np.ndarray, name: str) -> np.ndarray:
    """[E] for each row the next one, around the end, whose prompt is another. Raises: as `check_prompts_differ`."""
    check_prompts_differ(prompt_hashes, name)
    # Where a run of equal prompts ends and another begins; behind the last of them comes the first.
    begins = np.flatnonzero(prompt_hashes != np.roll(prompt_hashes, 1))
    following = np.searchsorted(begins, np.arange(len(prompt_hashes)), side="right")
    return begins[following % max(1, len(begins))] if len(begins) else begins
