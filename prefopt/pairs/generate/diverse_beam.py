"""Diverse beams of the policy: RRHF's candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from prefopt.fill import one_of
from prefopt.pairs.stages import Asked, Generated, Place
from prefopt.records import Example

__all__ = ["DiverseBeam"]


@dataclass(frozen=True)
class DiverseBeam:
    """The best answers of groups of beams that keep away from each other's tokens (arXiv 1610.02424).

    groups: of beams. beams: in each group; groups * beams answers to each prompt. One group is plain beam search.
    diversity_penalty: what a token loses for each beam of an earlier group that has just chosen it, nats; 0 with one
    group. length_penalty: an answer is worth its log-probability divided by its tokens to this power. temperature: of
    the softmax. max_new_tokens, stop, unfinished, given: as in `sample`.

    Yuan et al. 2023 (RRHF, arXiv 2304.05302) use 4 groups of one beam, diversity 1.0, temperature 0.8, 128 tokens.
    Their code carries the penalty on in the beams' scores; here a beam's score stays its log-probability.
    """

    groups: int = 4
    beams: int = 1
    diversity_penalty: float = 1.0
    length_penalty: float = 1.0
    temperature: float = 0.8
    max_new_tokens: int = 128
    stop: list[str] = field(default_factory=list)
    unfinished: str = one_of("drop", "keep")
    given: str = one_of("keep", "drop")

    needs_policy: ClassVar[bool] = True
    works_on_responses: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if min(self.groups, self.beams, self.max_new_tokens) < 1:
            raise ValueError("groups, beams and max_new_tokens must be 1 or more")
        if self.temperature <= 0 or self.diversity_penalty < 0:
            raise ValueError("temperature must be above 0 and diversity_penalty 0 or more")
        if (self.groups == 1) != (self.diversity_penalty == 0):
            raise ValueError(
                f"diversity_penalty {self.diversity_penalty} with {self.groups} group(s): one group has nothing to keep"
                " away from (diversity_penalty=0), and several without a penalty are the same beams again"
            )

    @property
    def answers(self) -> int:
        """Of each policy, to each prompt."""
        return self.groups * self.beams

    def check(self, asked: Asked) -> None:
        """Raises: as `check_policies`."""
        from prefopt.pairs.model_checks import check_policies

        check_policies(asked, self.max_new_tokens)

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Generated]]:
        """Loads the policies. Raises: as `open_policy`."""
        from prefopt.pairs.answers import Answers, Said
        from prefopt.pairs.beams import Searching, search
        from prefopt.pairs.policies import Answering, open_policy

        def answer(asked: Answering, number: int, prompts: list[list[int]], keys: list[str]) -> list[list[Said]]:
            how = Searching(
                self.groups,
                self.beams,
                self.diversity_penalty,
                self.length_penalty,
                self.temperature,
                self.max_new_tokens,
                asked.ends,
            )
            with asked.lanes() as lanes:
                found = search(lanes, prompts, how, place.settings.tokens_per_batch)
            return [[Said(b.tokens, b.stopped) for b in beams] for beams in found]

        opened = [open_policy(path, place, self.stop, self.max_new_tokens) for path in place.settings.policies]
        return Answers(opened, answer, self.unfinished, self.given)
