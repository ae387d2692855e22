"""Instructions for texts that have none: instruction back-translation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from prefopt.pairs.generate.sample import Sample
from prefopt.pairs.stages import Asked, Generated, Place
from prefopt.records import Candidate, Example, Message

__all__ = ["BackTranslate"]


@dataclass(frozen=True)
class BackTranslate:
    """The prompts of the file are texts; the policy, a backward model p(instruction | text), says what may have asked.

    Li et al. 2023, arXiv 2308.06259: each instruction becomes a prompt, and the text its one response. The backward
    model is trained on `generate=swapped` rows.

    n: instructions for each text. is_chat: whether the instruction becomes a user's turn of a conversation, or a plain
    prompt. temperature, top_k, top_p, max_new_tokens, stop: as in `sample`; an instruction that the limit cut is left
    out.
    """

    n: int = 1
    is_chat: bool = False
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.9
    max_new_tokens: int = 256
    stop: list[str] = field(default_factory=list)

    needs_policy: ClassVar[bool] = True
    works_on_responses: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._sampling()

    @property
    def answers(self) -> int:
        """Instructions of each policy, to each text."""
        return self.n

    def check(self, asked: Asked) -> None:
        """Raises: as `check_policies`."""
        self._sampling().check(asked)

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Generated]]:
        """Loads the backward model. Raises: as `open_policy`."""
        answer = self._sampling().open(place)

        def instruct(texts: Sequence[Example]) -> list[Generated]:
            found = answer([replace(text, candidates=()) for text in texts])
            return [self._swapped(text, generated) for text, generated in zip(texts, found, strict=True)]

        return instruct

    def _swapped(self, text: Example, generated: Generated) -> Generated:
        response = text.prompt[-1].content
        made = [
            Example(
                f"{text.id}#{number}",
                (Message("user", candidate.text.strip()),),
                (Candidate(response, source=candidate.source),),
                self.is_chat,
            )
            for example in generated.examples
            for number, candidate in enumerate(example.candidates)
        ]
        return Generated(tuple(made), generated.left_out)

    def _sampling(self) -> Sample:
        return Sample(self.n, self.temperature, self.top_k, self.top_p, self.max_new_tokens, self.stop)
