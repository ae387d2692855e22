"""What a set of answers is like: lengths, endings, emptiness, and how many differ. Standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prefopt.evaluate.answer_chunks import Reply
from prefopt.evaluate.answer_files import Answer
from prefopt.evaluate.measure import Figure, Measured
from prefopt.evaluate.questions import PUBLISHED, Questions

if TYPE_CHECKING:
    from prefopt.evaluate.measures.answers import Answers


def measured(
    settings: Answers,
    questions: Questions,
    replies: Sequence[Sequence[Reply]],
    answers: Sequence[Answer],
    notes: list[str],
) -> Measured:
    """Figures of the answers, FORMAT/NAME and, where there are several categories, FORMAT/CATEGORY/NAME.

    answers: how many. tokens: mean, without the ending one. stopped: share that the model ended. empty: share without
    words. distinct: share of different texts among them; a model that says the same to everything has 1/n.
    replies: of each question its turns. notes: of the export.
    """
    form = settings.format
    by_category: dict[str, list[Answer]] = {}
    for answer in answers:
        by_category.setdefault(answer.category, []).append(answer)
    figures = _figures(form, answers)
    table = [_row(category, own) for category, own in sorted(by_category.items()) if category]
    if len(by_category) > 1:
        for category, own in sorted(by_category.items()):
            figures |= _figures(f"{form}/{category or 'without a category'}", own)
    flat = [reply for turns in replies for reply in turns]
    left_out = Counter(questions.left_out)
    left_out.update(reply.reason for reply in flat if reply.response is None)
    unasked = sum(question.num_turns - len(turns) for question, turns in zip(questions.all, replies, strict=True))
    if unasked:
        left_out["the turn before could not be asked"] = unasked
    rows = [
        {
            "id": answer.id,
            "turn": answer.turn,
            "category": answer.category,
            "tokens": answer.tokens,
            "characters": len(answer.response),
            "stopped": answer.stopped,
        }
        for answer in answers
    ]
    tables = {"categories": table} if table else {}
    return Measured(figures, tables, rows, left_out, (*_notes(settings, questions, flat), *notes))


def _figures(name: str, answers: Sequence[Answer]) -> dict[str, Figure]:
    row = _row("", answers)
    return {f"{name}/{key}": Figure(float(row[key]), count=len(answers)) for key in row if key != "category"}


def _row(category: str, answers: Sequence[Answer]) -> dict[str, Any]:
    count = len(answers)
    return {
        "category": category,
        "answers": count,
        "tokens": sum(answer.tokens or 0 for answer in answers) / count,
        "stopped": sum(bool(answer.stopped) for answer in answers) / count,
        "empty": sum(not answer.response.strip() for answer in answers) / count,
        "distinct": len({answer.response for answer in answers}) / count,
    }


def _notes(settings: Answers, questions: Questions, replies: Sequence[Reply]) -> list[str]:
    notes = []
    count, whole = len(questions.all), PUBLISHED.get(settings.format)
    if whole is not None and count != whole:
        notes.append(f"{count} questions, where the published set has {whole}: not comparable with published scores")
    notes.append(f"decoding: {settings.decoding()}")
    answered = [reply for reply in replies if reply.response is not None]
    if answered:
        notes.append(_about_bos(Counter(reply.bos for reply in answered)))
    if settings.format == "mt_bench" and settings.temperature is None:
        used = {question.category: settings.temperature_of(question.category) for question in questions.all}
        by = ", ".join(f"{category or 'no category'} {value:g}" for category, value in sorted(used.items()))
        notes.append(f"temperatures by category, as FastChat has them: {by}")
    special = [reply for reply in answered if reply.special]
    if special:
        words = Counter(word for reply in special for word in reply.special)
        names = ", ".join(word for word, _ in words.most_common(5))
        notes.append(
            f"{len(special)} answers had special tokens within ({names}), which their text does not hold;"
            " where one of them ends an answer: measure.stop"
        )
    return notes


def _about_bos(counts: Counter[int]) -> str:
    total = sum(counts.values())
    if set(counts) == {1}:
        return f"each of the {total} prompts begins with exactly one BOS"
    if set(counts) == {0}:
        return f"none of the {total} prompts begins with a BOS: the template writes none, in training as here"
    said = ", ".join(f"{number} begin with {bos} BOS" for bos, number in sorted(counts.items()))
    return f"prompts differ in their BOS: {said}"
