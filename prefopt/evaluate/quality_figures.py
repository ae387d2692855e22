"""The figures, tables and rows of `measure=quality`; what is measured of a text is in `text_quality.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prefopt.errors import UserError
from prefopt.evaluate import text_quality as quality
from prefopt.evaluate.answer_files import Answer
from prefopt.evaluate.measure import Figure, Measured
from prefopt.evaluate.resample import mean_figure
from prefopt.pairs.score.repetition import repeated_share

ONLY_AFTER, ONLY_BEFORE = "answer to a question that before does not have", "answer from before to another question"

_MEANS = {
    "words": "length/words",
    "characters": "length/characters",
    "tokens": "length/tokens",
    "repetition": "repetition",
    "token_repetition": "token_repetition",
    "stopped": "stopped",
    "empty": "empty",
    "refusal": "refusal",
}
"""Key of an answer's row to the figure that is its mean over answers."""


@dataclass(frozen=True)
class Counting:
    """How answers are counted. tokens: of a text, or None. self_bleu_answers: 0 for no self-BLEU."""

    tokens: Callable[[str], Sequence[int]] | None
    self_bleu_answers: int
    resamples: int
    seed: int


def measure_answers(answers: Sequence[Answer], before: Sequence[Answer] | None, counting: Counting) -> Measured:
    """Everything about a list of answers, and about those from before where there are some.

    Raises: UserError where the two answer no question in common.
    """
    left_out: dict[str, int] = {}
    if before is not None:
        answers, before, left_out = _matched(answers, before)
    rows = _rows(answers, counting)
    figures, notes = _figures("answers", answers, rows, counting)
    tables = {"categories": _categories(rows)} if len({answer.category for answer in answers}) > 1 else {}
    if before is not None:
        rows_before = _rows(before, counting)
        figures_before, notes_before = _figures("before", before, rows_before, counting)
        notes += notes_before
        differences = _differences(rows, rows_before, counting) | _plain_differences(figures, figures_before)
        tables["before_and_after"] = _table(figures, figures_before, differences)
        figures = figures | figures_before | differences
        rows = [{"of": "answers", **row} for row in rows] + [{"of": "before", **row} for row in rows_before]
    return Measured(figures, tables, rows, left_out, tuple(notes))


def _rows(answers: Sequence[Answer], counting: Counting) -> list[dict[str, Any]]:
    """One mapping per answer. A number that is not known is None."""
    same = quality.same_as_others([answer.response for answer in answers])
    return [_row(answer, others, counting) for answer, others in zip(answers, same)]


def _row(answer: Answer, same: int, counting: Counting) -> dict[str, Any]:
    ids = None if counting.tokens is None else counting.tokens(answer.response)
    return {
        "id": answer.id,
        "turn": answer.turn,
        "category": answer.category,
        "words": len(quality.words_of(answer.response)),
        "characters": len(answer.response),
        "tokens": answer.tokens if ids is None else len(ids),
        "repetition": quality.repetition(answer.response),
        "token_repetition": None if ids is None else repeated_share(ids, quality.GRAM),
        "stopped": answer.stopped,
        "empty": quality.is_empty(answer.response),
        "refusal": quality.is_refusal(answer.response),
        "same": same,
    }


def _known(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([row[key] for row in rows if row[key] is not None], dtype=np.float64)


def _figures(
    name: str, answers: Sequence[Answer], rows: Sequence[Mapping[str, Any]], counting: Counting
) -> tuple[dict[str, Figure], list[str]]:
    texts = [answer.response for answer in answers]
    figures: dict[str, Figure] = {}
    notes = []
    for key, metric in _MEANS.items():
        values = _known(rows, key)
        if len(values):
            figures[f"{name}/{metric}"] = mean_figure(values, counting.resamples, counting.seed)
        if key in ("tokens", "stopped") and len(values) < len(rows):
            missing = f"{name}: {len(rows) - len(values)} of {len(rows)} answers do not say"
            notes.append(f"{missing} {'of how many tokens they are' if key == 'tokens' else 'how they ended'}")
    same = np.array([row["same"] > 0 for row in rows], dtype=np.float64)
    figures[f"{name}/identical"] = Figure(float(same.mean()), count=len(rows))
    figures[f"{name}/most_common"] = Figure(quality.most_common_share(texts), count=len(rows))
    for n in (1, 2, 3):
        share = quality.distinct(texts, n)
        if share is not None:
            figures[f"{name}/distinct/{n}"] = Figure(share, count=len(rows))
    self_bleu, said = _self_bleu(name, texts, counting)
    if self_bleu is not None:
        figures[f"{name}/self_bleu"] = self_bleu
    return figures, notes + said


def _self_bleu(name: str, texts: Sequence[str], counting: Counting) -> tuple[Figure | None, list[str]]:
    """Over answers that are not empty, a drawn part of them where there are more than are asked for."""
    wanted = counting.self_bleu_answers
    if not wanted:
        return None, []
    full = [text for text in texts if not quality.is_empty(text)]
    notes = []
    if len(full) < len(texts):
        notes.append(f"{name}/self_bleu leaves {len(texts) - len(full)} empty answers out")
    if len(full) < 2:
        return None, [f"{name}: no self-BLEU of {len(full)} answers that are not empty"]
    if len(full) > wanted:
        notes.append(f"{name}/self_bleu is over {wanted} of {len(full)} answers, drawn with seed {counting.seed}")
        drawn = np.random.default_rng(counting.seed).permutation(len(full))[:wanted]
        full = [full[place] for place in sorted(drawn)]
    scores = quality.self_bleu(full)
    return Figure(sum(scores) / len(scores), count=len(scores)), notes


def _matched(answers: Sequence[Answer], before: Sequence[Answer]) -> tuple[list[Answer], list[Answer], dict[str, int]]:
    """The answers to questions and turns that both files have, in one order, and how many the others are.

    Raises: UserError where there are none.
    """
    old = {(answer.id, answer.turn): answer for answer in before}
    new = [answer for answer in answers if (answer.id, answer.turn) in old]
    if not new:
        raise UserError(
            "measure.before: no question is answered in both files",
            "give answers to the same questions (matched by id, AlpacaEval's by instruction), or leave it out",
        )
    alone = {ONLY_AFTER: len(answers) - len(new), ONLY_BEFORE: len(before) - len(new)}
    left_out = {reason: count for reason, count in alone.items() if count}
    return new, [old[answer.id, answer.turn] for answer in new], left_out


def _differences(
    rows: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]], counting: Counting
) -> dict[str, Figure]:
    """Of what is a mean over answers: the mean difference over questions, with its interval."""
    found = {}
    for key, metric in _MEANS.items():
        pairs = [(new[key], old[key]) for new, old in zip(rows, before)]
        gaps = [float(new) - float(old) for new, old in pairs if new is not None and old is not None]
        if gaps:
            found[f"difference/{metric}"] = mean_figure(np.array(gaps), counting.resamples, counting.seed)
    return found


def _plain_differences(after: Mapping[str, Figure], before: Mapping[str, Figure]) -> dict[str, Figure]:
    """Of what is a number of a whole set: without an interval."""
    found = {}
    for metric in ("identical", "most_common", "distinct/1", "distinct/2", "distinct/3", "self_bleu"):
        one, other = after.get(f"answers/{metric}"), before.get(f"before/{metric}")
        if one is not None and other is not None:
            found[f"difference/{metric}"] = Figure(one.value - other.value, count=min(one.count, other.count))
    return found


def _table(
    after: Mapping[str, Figure], before: Mapping[str, Figure], differences: Mapping[str, Figure]
) -> list[dict[str, Any]]:
    rows = []
    for name, gap in differences.items():
        metric = name.removeprefix("difference/")
        values = {"before": before[f"before/{metric}"].value, "answers": after[f"answers/{metric}"].value}
        rows.append({"figure": metric, **values, "difference": gap.value, "low": gap.low, "high": gap.high})
    return rows


def _categories(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means of the answers of each category, in the order in which categories occur."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["category"], []).append(row)
    columns = ("words", "repetition", "empty", "refusal")
    return [
        {"category": name, "answers": len(group), **{key: float(_known(group, key).mean()) for key in columns}}
        for name, group in by_name.items()
    ]
