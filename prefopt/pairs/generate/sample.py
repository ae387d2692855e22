"""Samples of the policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from prefopt.fill import one_of
from prefopt.pairs.stages import Asked, Generated, Place
from prefopt.records import Example

__all__ = ["Sample"]


@dataclass(frozen=True)
class Sample:
    """n answers of each policy to each prompt, drawn one token after the other.

    n: answers of each policy. temperature: of the softmax; 0 takes the likeliest token (then n is 1). top_k: draws from
    the k likeliest tokens; 0: from all. top_p: from the fewest likeliest that hold this probability. max_new_tokens: of
    an answer. stop: further tokens, as the vocabulary spells them, that end an answer. unfinished: what becomes of an
    answer that the limit cut: it is left out (drop), or taken as it is (keep). given: what becomes of responses that
    the file has: they are no candidates, and the best of them is the response to imitate (drop), or they are candidates
    too (keep).

    The same seed gives the same answers for any number of processes and shards; another chunk_size or tokens_per_batch
    changes rounding, and with it at most a few tokens.
    """

    n: int = 8
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 512
    stop: list[str] = field(default_factory=list)
    unfinished: str = one_of("drop", "keep")
    given: str = one_of("drop", "keep")

    needs_policy: ClassVar[bool] = True
    works_on_responses: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_new_tokens < 1:
            raise ValueError(f"n and max_new_tokens must be 1 or more, not {self.n} and {self.max_new_tokens}")
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError("temperature and top_k must be 0 or more, and top_p above 0 and at most 1")
        if self.temperature == 0 and (self.n > 1 or self.top_k or self.top_p < 1):
            raise ValueError("temperature 0 takes the likeliest token: n must be 1, top_k 0 and top_p 1")

    @property
    def answers(self) -> int:
        """Of each policy, to each prompt."""
        return self.n

    def check(self, asked: Asked) -> None:
        """Raises: as `check_policies`."""
        from prefopt.pairs.model_checks import check_policies

        check_policies(asked, self.max_new_tokens)

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Generated]]:
        """Loads the policies. Raises: as `open_policy`."""
        from prefopt.pairs.answers import Answers, Said
        from prefopt.pairs.policies import Answering, open_policy
        from prefopt.pairs.sampling import Drawing, sample, uniforms_of

        def answer(asked: Answering, number: int, prompts: list[list[int]], keys: list[str]) -> list[list[Said]]:
            drawing = Drawing(self.temperature, self.top_k, self.top_p, self.max_new_tokens, asked.ends)
            uniforms = uniforms_of(place.settings.seed, number, keys, self.max_new_tokens)
            with asked.lanes() as lanes:
                found = sample(lanes, prompts, self.n, drawing, uniforms, place.settings.tokens_per_batch)
            return [[Said(s.tokens, s.stopped) for s in samples] for samples in found]

        opened = [open_policy(path, place, self.stop, self.max_new_tokens) for path in place.settings.policies]
        return Answers(opened, answer, self.unfinished, self.given)
