"""A named set of encoded rows: a sequence of `Encoded` over memory-mapped Arrow, with its lengths as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa

from prefopt.batch import Encoded
from prefopt.data.artefact import Artefact


class SourceSpan(NamedTuple):
    """Rows start..start+num_rows-1 come from one source, to be seen `weight` times an epoch."""

    start: int
    num_rows: int
    weight: float


@dataclass(frozen=True)
class Part:
    """Some rows of one source's artefact. places: [n] which, in order. weight: as in `SourceSettings`."""

    artefact: Artefact
    places: np.ndarray
    weight: float

    def column(self, name: str) -> np.ndarray:
        """A column of plain numbers for these rows: [n]."""
        return self.artefact.numbers.plain[name][self.places]

    def lengths(self, name: str) -> np.ndarray:
        """How many items a list column holds in each of these rows: [n]."""
        return self.artefact.numbers.lengths[name][self.places].astype(np.int64)

    def response_lengths(self) -> np.ndarray:
        """Tokens of every response of these rows, one after the other."""
        numbers = self.artefact.numbers
        stored = numbers.lengths["responses"].astype(np.int64)
        firsts, counts = (np.cumsum(stored) - stored)[self.places], stored[self.places]
        # Each row's first response, counted up within the row.
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return numbers.response_lengths[np.repeat(firsts, counts) + within].astype(np.int64)


def encoded_row(place: int, row: Mapping[str, Any]) -> Encoded:
    """A row as it lies in an artefact. place: its index in the set."""
    pairs = row["pairs"]
    return Encoded(
        id=row["id"],
        index=place,
        prompt=row["prompt"],
        responses=row["responses"],
        pairs=list(zip(pairs[::2], pairs[1::2])),
        best=row["best"],
        labels=row["labels"],
        scores=row["scores"],
        margins=row["margins"],
        target=row["target"],
        given=row["given"],
    )


class EncodedSet(Sequence[Encoded]):
    """Encoded rows under one name; rows of one source lie together.

    num_pairs: [E]. prompt_lengths: [E] tokens. response_lengths: [R] tokens, all rows one after the other, those of
    row i at response_offsets[i] .. response_offsets[i + 1]. sources: the span and weight of each source.
    A row's target that is none of the file's responses is its last response; its score and margins are 0.0, which say
    nothing.
    """

    def __init__(self, name: str, parts: Sequence[Part]) -> None:
        self.name = name
        self.parts = tuple(part for part in parts if len(part.places))
        counts = [len(part.places) for part in self.parts]
        self._starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        self.sources = [SourceSpan(int(s), c, p.weight) for s, c, p in zip(self._starts, counts, self.parts)]

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]  # IndexError beyond the ends
        return encoded_row(place, self._row(place))

    def prompt_text(self, index: int) -> str:
        """The prompt as it was rendered, before any cut; what the model is given is `self[index].prompt`."""
        return self._row(index)["prompt_text"]

    def chosen_text(self, index: int) -> str:
        """The best response as the file has it."""
        return self._row(index)["chosen_text"]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what decides the token ids, their order and their weights."""
        digest = hashlib.sha256()
        for part in self.parts:
            digest.update(f"{part.artefact.key} {part.artefact.digests['rows.arrow']} {part.weight!r} ".encode())
            digest.update(part.places.astype("<i8").tobytes())
        return digest.hexdigest()

    @cached_property
    def num_pairs(self) -> np.ndarray:
        return self._joined([part.lengths("pairs") // 2 for part in self.parts])

    @cached_property
    def prompt_lengths(self) -> np.ndarray:
        return self._joined([part.lengths("prompt") for part in self.parts])

    @cached_property
    def response_lengths(self) -> np.ndarray:
        return self._joined([part.response_lengths() for part in self.parts])

    @cached_property
    def response_offsets(self) -> np.ndarray:
        counts = self._joined([part.lengths("responses") for part in self.parts])
        return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)

    @cached_property
    def prompt_hashes(self) -> np.ndarray:
        """[E] uint64: equal for equal prompts."""
        return self._joined([part.column("prompt_hash") for part in self.parts], np.uint64)

    @property
    def ids(self) -> list[str]:
        """[E] the ids of the rows, "FILE:NUMBER"."""
        return [
            one
            for part in self.parts
            for one in part.artefact.rows.data.column("id").take(pa.array(part.places)).to_pylist()
        ]

    @staticmethod
    def _joined(arrays: list[np.ndarray], dtype: Any = np.int64) -> np.ndarray:
        return np.concatenate(arrays) if arrays else np.zeros(0, dtype)

    def _row(self, index: int) -> dict[str, Any]:
        place = range(len(self))[index]
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        part = self.parts[number]
        return part.artefact.rows[int(part.places[place - self._starts[number]])]
