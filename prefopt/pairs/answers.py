"""From prompts to candidates: encode, let each policy answer, decode, and account for every answer that is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from prefopt.pairs.chance import key_of
from prefopt.pairs.policies import Answering
from prefopt.pairs.stages import STOPPED, UNFINISHED, Generated, LeftOut
from prefopt.records import Candidate, Example


class Said(NamedTuple):
    """tokens: of an answer, without the one that ended it. stopped: the policy ended it, not the limit."""

    tokens: list[int]
    stopped: bool


Answer = Callable[[Answering, int, list[list[int]], list[str]], list[list[Said]]]
"""(policy, its place among them, prompts as ids, their keys) to the answers to each."""


@dataclass(frozen=True)
class Answers:
    """The work on a chunk.

    policies: each answers every prompt. unfinished: "drop" or "keep" what the limit cut. given: "drop" or "keep" the
    responses of the file; the best of those that are dropped stays as the response to imitate (y_ref) where there is
    none.
    """

    policies: Sequence[Answering]
    answer: Answer
    unfinished: str
    given: str

    def __call__(self, examples: Sequence[Example]) -> list[Generated]:
        """Each prompt with its new candidates, policy after policy, behind those of the file where they are kept."""
        if self.given == "drop":
            examples = [_without_given(example) for example in examples]
        candidates: list[list[Candidate]] = [list(e.candidates) for e in examples]
        left_out: list[list[LeftOut]] = [[] for _ in examples]
        unasked: list[list[LeftOut]] = [[] for _ in examples]
        for number_of_policy, asked in enumerate(self.policies):
            prompts, places, refused = asked.encode(examples)
            for place, reason in refused.items():
                unasked[place].append(reason._replace(detail=f"{asked.name}: {reason.detail}"))
            if not prompts:
                continue
            found = self.answer(asked, number_of_policy, prompts, [key_of(examples[place]) for place in places])
            for place, prompt, answers in zip(places, prompts, found, strict=True):
                example = examples[place]
                for number, (tokens, stopped) in enumerate(answers):
                    text = asked.decode(prompt, tokens, example.is_chat)
                    why = self._refused(asked, example, text, tokens, stopped)
                    if why is None:
                        source = {"policy": asked.name, "sample": number, "tokens": len(tokens), STOPPED: stopped}
                        candidates[place].append(Candidate(text, source=source))
                    else:
                        left_out[place].append(why)
        made = []
        for example, found_here, lost, refusals in zip(examples, candidates, left_out, unasked, strict=True):
            if not found_here and not lost:
                lost.append(refusals[0])  # no policy could be asked: the prompt is left out, once
            else:
                lost += [one._replace(text="") for one in refusals]  # what this policy would have said
                if not found_here:
                    detail = f"{len(lost)} answers, none of which can be used"
                    lost.append(LeftOut(example.id, "no candidate", detail))
            whole = (replace(example, candidates=tuple(found_here)),) if found_here else ()
            made.append(Generated(whole, tuple(lost)))
        return made

    def _refused(
        self, asked: Answering, example: Example, text: str, tokens: list[int], stopped: bool
    ) -> LeftOut | None:
        if not text.strip():
            return LeftOut(example.id, "empty answer", f"{len(tokens)} tokens", text)
        if not stopped and self.unfinished == "drop":
            return LeftOut(example.id, UNFINISHED, f"cut after {len(tokens)} tokens", text)
        if special := asked.unwritable(tokens, example.is_chat):
            words = ", ".join(dict.fromkeys(special))
            detail = f"{words}; where that ends an answer: generate.stop"
            return LeftOut(example.id, "special tokens within the answer", detail, text)
        return None


def _without_given(example: Example) -> Example:
    """The prompt without the responses of its row, the best of them as its target."""
    if not example.candidates:
        return example
    best = max(example.candidates, key=lambda c: -math.inf if c.score is None else c.score)
    return replace(example, candidates=(), target=example.target if example.target is not None else best.text)
