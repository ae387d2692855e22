"""Judgment files of Arena-Hard: data/BENCH/model_judgment/JUDGE/MODEL.jsonl, of v0.1 and of v2.0 (Li et al. 2024).

A row: uid (question_id before v2.0), model, category (v2.0), games: two objects with a score such as "A>>B". In the
first game A is the baseline and B the model, in the second A is the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefopt.data.files import READERS, reader_of
from prefopt.errors import UserError

VERDICTS = {
    "A>>B": (1.0, True),
    "A>B": (1.0, False),
    "A=B": (0.5, False),
    "B>A": (0.0, False),
    "B>>A": (0.0, True),
    "A<<B": (0.0, True),
    "A<B": (0.0, False),
    "B=A": (0.5, False),
    "B<A": (1.0, False),
    "B<<A": (1.0, True),
}
"""What A gets, and whether the verdict is a strong one."""


@dataclass(frozen=True)
class Judgment:
    """One question. games: what the model gets (0 to 1) in each of two, and whether the verdict is strong; empty where
    the judge gave none in one of them. where: file and line."""

    uid: str
    category: str
    games: tuple[tuple[float, bool], ...]
    where: str


def read_judgments(path: Path) -> tuple[str, list[Judgment]]:
    """The model's name, and the judgments of a file in its order.

    Raises: UserError for a file or a row that is none, a verdict that is not known, a question that comes twice.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such judgment file", "model_judgment/JUDGE/MODEL.jsonl of Arena-Hard")
    reader = reader_of(path, {name: read for name, read in READERS.items() if ".json" in name})
    if reader is None:
        raise UserError(f"{path}: judgments are read from .jsonl and .json, gzipped or not", "rename or convert it")
    model = ""
    found: list[Judgment] = []
    seen: dict[str, str] = {}
    for row in reader(path, str(path)):
        judgment = _judgment(row.value, row.id)
        if judgment.uid in seen:
            raise UserError(
                f"{row.id}: question {judgment.uid} was judged before, at {seen[judgment.uid]}",
                "one row for each question: delete the other",
            )
        named = str(row.value.get("model") or path.name.split(".jsonl")[0])
        if model and named != model:
            raise UserError(f"{row.id}: model is {named!r}, above it was {model!r}", "one file for each model")
        model = named
        seen[judgment.uid] = row.id
        found.append(judgment)
    if not found:
        raise UserError(f"{path}: no judgments in it")
    return model, found


def _judgment(row: Mapping[str, Any], where: str) -> Judgment:
    uid = row.get("uid", row.get("question_id"))
    games = row.get("games")
    if not isinstance(uid, str | int) or isinstance(uid, bool):
        raise UserError(f"{where}: there is neither uid nor question_id", "that is no row of an Arena-Hard judgment")
    if not isinstance(games, list):
        raise UserError(f"{where}: games is not there, or no list", "that is no row of an Arena-Hard judgment")
    if len(games) > 2:
        raise UserError(f"{where}: there are {len(games)} games, there should be two", "delete what is too much")
    labels = [game.get("score") if isinstance(game, Mapping) else None for game in games]
    for label in labels:
        if label is not None and label not in VERDICTS:
            raise UserError(
                f"{where}: {label!r} is no verdict", f"known: {', '.join(VERDICTS)}; null where there is none"
            )
    category = str(row.get("category") or "")
    if len(labels) < 2 or None in labels:
        return Judgment(str(uid), category, (), where)
    (of_baseline, first_strong), (of_model, second_strong) = (VERDICTS[str(label)] for label in labels)
    return Judgment(str(uid), category, ((1 - of_baseline, first_strong), (of_model, second_strong)), where)
