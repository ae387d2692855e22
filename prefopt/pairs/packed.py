"""Numbers that a model gives to candidates: packed on one token axis, each prompt once for all its responses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from prefopt.batch import Batch, Encoded
from prefopt.errors import RunError
from prefopt.model.forward import respond
from prefopt.model.policy import Policy
from prefopt.pack import pack
from prefopt.pairs.encode import CandidateEncoder, Tokens

T = TypeVar("T")


class Piece(NamedTuple):
    """Responses to one prompt that lie in one batch.

    example: place among the Examples. responses: token ids. places: for each the candidates that have these ids: equal
    candidates are asked once, so that their numbers are equal to the last bit.
    """

    example: int
    responses: tuple[list[int], ...]
    places: tuple[tuple[int, ...], ...]


def cut(tokens: Sequence[Tokens], budget: int, layout: str) -> list[list[Piece]]:
    """The responses in batches of up to `budget` tokens on the axis, those of a length together.

    Responses to one prompt stay together as far as the budget goes; one response above it is alone. layout: the
    policy's: only "shared" has a prompt once for several responses, and "padded" counts every row as the longest.
    """
    sized = [
        (len(one.prompt) + sum(map(len, piece.responses)), piece)
        for example, one in enumerate(tokens)
        for piece in _pieces(example, one, budget if layout == "shared" else 0)
    ]
    batches: list[list[Piece]] = []
    filled = budget + 1
    longest = 0
    for size, piece in sorted(sized, key=lambda pair: -pair[0]):
        filled += longest if layout == "padded" else size
        if filled > budget:
            batches.append([])
            filled = longest = size
        batches[-1].append(piece)
    return batches


def _pieces(example: int, one: Tokens, budget: int) -> Iterator[Piece]:
    """The distinct responses of an Example in pieces of up to `budget` tokens with the prompt; none is empty."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, ids in enumerate(one.responses):
        if ids is not None:
            places.setdefault(tuple(ids), []).append(place)
    group: list[tuple[int, ...]] = []
    for key in places:
        if group and len(one.prompt) + sum(map(len, group)) + len(key) > budget:
            yield Piece(example, tuple(map(list, group)), tuple(tuple(places[g]) for g in group))
            group = []
        group.append(key)
    if group:
        yield Piece(example, tuple(map(list, group)), tuple(tuple(places[g]) for g in group))


@dataclass(frozen=True)
class PackedModel:
    """A frozen policy or reward model on its device, with the encoder of its own tokenizer.

    tokens_per_batch: tokens on the axis at once. The numbers do not depend on it beyond rounding.
    """

    policy: Policy
    encoder: CandidateEncoder
    device: str
    tokens_per_batch: int

    def logps(self, tokens: Sequence[Tokens]) -> list[list[float | None]]:
        """The log-probability of every response, EOS included: sums in nats; None where it has no ids.

        Raises: RunError naming the row where a number is not finite.
        """
        return self._logps(tokens, 0)

    def rewards(self, tokens: Sequence[Tokens]) -> list[list[list[float] | None]]:
        """What the head gives for every response: one number for each of its labels. Raises: as `logps`."""

        def measure(batch: Batch) -> list[list[float]]:
            found = respond(self.policy, batch).rewards
            assert found is not None, "the model has a head for sequences"
            return found.double().reshape(len(found), -1).tolist()

        return self._checked(tokens, self._each(tokens, measure), "reward")

    def verdicts(self, tokens: Sequence[Tokens], words: Sequence[list[int]]) -> list[list[list[float] | None]]:
        """log p(word | prompt, response) for every response and each of the words: nats, summed over the word's tokens.

        words: token ids of each, as `CandidateEncoder.verdicts` gives them. Raises: as `logps`.
        """
        if all(len(word) == 1 for word in words):
            # One place predicts them all, so that what is judged lies on the axis once.
            def measure(batch: Batch) -> list[list[float]]:
                rows = len(batch.predictor)
                target = torch.tensor([word[0] for word in words], device=batch.target.device)
                asked = replace(
                    batch,
                    predictor=batch.predictor.repeat_interleave(len(words)),
                    target=target.repeat(rows),
                    row=batch.row.repeat_interleave(len(words)),
                )
                return self.policy(asked).token_logps.double().reshape(rows, len(words)).tolist()

            return self._checked(tokens, self._each(_ending_in(tokens, words[0]), measure, 1), "log-probability")
        of_words = [self._logps(_ending_in(tokens, word), len(word)) for word in words]
        return [
            [None if None in values else [v for v in values if v is not None] for values in zip(*one, strict=True)]
            for one in zip(*of_words, strict=True)
        ]

    def states(self, tokens: Sequence[Tokens]) -> list[list[Tensor | None]]:
        """Hidden states of the last layer at every response's tokens but its last, which is EOS.

        [n - 1, H] each, on the CPU. They are kept all at once: ask for few Examples.
        """

        def measure(batch: Batch) -> list[Tensor]:
            states = self.policy.states(batch)
            spans = [span for segment in batch.segments for span in segment.responses]
            return [states[span.start : span.stop].cpu() for span in spans]

        return self._each(tokens, measure)

    def _logps(self, tokens: Sequence[Tokens], tail: int) -> list[list[float | None]]:
        def measure(batch: Batch) -> list[float]:
            return respond(self.policy, batch).logps.tolist()

        return self._checked(tokens, self._each(tokens, measure, tail), "log-probability")

    def _each(
        self, tokens: Sequence[Tokens], measure: Callable[[Batch], Sequence[T]], tail: int = 0
    ) -> list[list[T | None]]:
        """measure: a batch's value for each of its rows. tail: only so many tokens at the end of a response are
        predicted, the others read; 0: all are."""
        found: list[list[T | None]] = [[None] * len(one.responses) for one in tokens]
        for pieces in cut(tokens, self.tokens_per_batch, self.policy.layout):
            encoded = [self._encoded(tokens[piece.example], piece, tail) for piece in pieces]
            batch = pack(encoded, self.policy.shares_prompts, whole_responses=self.policy.has_scalar_head)
            with torch.no_grad():
                values = measure(batch.to(self.device))
            places = [(piece.example, same) for piece in pieces for same in piece.places]
            for (example, same), value in zip(places, values, strict=True):
                for place in same:
                    found[example][place] = value
        return found

    @staticmethod
    def _encoded(one: Tokens, piece: Piece, tail: int) -> Encoded:
        given = [len(ids) - tail for ids in piece.responses] if tail else None
        return Encoded(one.id, piece.example, one.prompt, list(piece.responses), [], 0, given=given)

    def _checked(self, tokens: Sequence[Tokens], found: list[list[T | None]], what: str) -> list[list[T | None]]:
        for one, values in zip(tokens, found, strict=True):
            for place, value in enumerate(values):
                if not all(map(math.isfinite, _numbers(value))):
                    raise RunError(
                        f"{one.id}: the {what} that {self.encoder.model} gives to candidate {place + 1} is not finite",
                        "take another model, or dtype=float32",
                    )
        return found


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, float):
        yield value


def _ending_in(tokens: Sequence[Tokens], word: list[int]) -> list[Tokens]:
    """The same with a word behind every response."""
    return [
        one._replace(responses=tuple(None if ids is None else ids + word for ids in one.responses)) for one in tokens
    ]
