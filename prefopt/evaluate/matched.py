"""Answers of two files to the same questions, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prefopt.errors import UserError
from prefopt.evaluate.answer_files import Answer
from prefopt.records import Candidate, Example, Message


@dataclass(frozen=True)
class Matched:
    """One question with both answers. model, baseline: of the two files."""

    model: Answer
    baseline: Answer

    @property
    def category(self) -> str:
        """Of the question; empty where neither file has one."""
        return self.model.category or self.baseline.category

    @property
    def example(self) -> Example:
        """For a judge: the prompt as one turn, or as the text it is, the model's response and then the baseline's."""
        prompt = self.model.prompt or self.baseline.prompt
        both = (Candidate(self.model.response), Candidate(self.baseline.response))
        return Example(self.model.id, (Message("user", prompt),), both, self.model.is_chat)


def match(model: Sequence[Answer], baseline: Sequence[Answer], allow: bool) -> tuple[list[Matched], dict[str, int]]:
    """Pairs of the same id and turn, or, where the files share no id, of the same prompt; in the order of the model's
    file. And how many are without a partner, by file.

    Raises: UserError where one has none without allow, where none has one, where an id has two prompts, and where
        neither file has the prompt.
    """
    by_id = _paired(model, baseline, lambda a: (a.id, a.turn))
    pairs = by_id or _paired(model, baseline, lambda a: (a.prompt, a.turn) if a.prompt else None)
    if not pairs:
        raise UserError(
            f"measure.baseline: none of its {len(baseline)} answers is to one of the {len(model)} questions of"
            " measure.answers",
            "take files of the same question set",
        )
    for pair in pairs:
        asked = {pair.model.prompt, pair.baseline.prompt} - {""}
        if len(asked) != 1:
            what = "has two prompts" if asked else "has its prompt in neither file"
            raise UserError(f"question {pair.model.id} {what}", "take files of the same question set, with prompts")
    paired = {id(answer) for pair in pairs for answer in (pair.model, pair.baseline)}
    alone = {
        "no answer of the baseline": [answer for answer in model if id(answer) not in paired],
        "no answer of the model": [answer for answer in baseline if id(answer) not in paired],
    }
    for reason, answers in alone.items():
        if answers and not allow:
            raise UserError(
                f"{len(answers)} questions have {reason}; the first is {answers[0].id} ({answers[0].prompt[:60]!r})",
                "take files of the same question set, or measure.allow_unmatched=true leaves them out",
            )
    return pairs, {reason: len(answers) for reason, answers in alone.items() if answers}


def _paired(
    model: Sequence[Answer], baseline: Sequence[Answer], key: Callable[[Answer], tuple[str, int] | None]
) -> list[Matched]:
    known: dict[tuple[str, int], Answer] = {}
    for answer in baseline:
        found = key(answer)
        if found is not None:
            known.setdefault(found, answer)
    pairs = ((answer, known.get(found)) for answer in model if (found := key(answer)) is not None)
    return [Matched(answer, other) for answer, other in pairs if other is not None]
