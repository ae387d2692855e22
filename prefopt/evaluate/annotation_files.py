"""Annotation files of AlpacaEval: one object per instruction, with what the judge preferred."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefopt.data.files import READERS, reader_of
from prefopt.errors import UserError


@dataclass(frozen=True)
class Annotation:
    """One judged instruction. preference: 0 to 1, 1 for the model; None where the judge gave none.

    baseline_length: of the baseline's answer, in characters. response: the model's. where: file and row.
    """

    instruction: str
    dataset: str
    preference: float | None
    baseline_length: int
    response: str
    where: str


@dataclass(frozen=True)
class Annotated:
    """A file. generator, baseline: as the file names them; two in one file are refused."""

    generator: str
    baseline: str
    rows: tuple[Annotation, ...]


def read_annotations(path: Path) -> Annotated:
    """The rows of a file of AlpacaEval (.json or .jsonl, gzipped or not), in its order.

    Raises: UserError for a file that is none, a row that lacks a key or has a preference that is not from 1 to 2 (0 is
        a tie), an instruction that comes twice, and rows of several models.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such annotation file", "name files such as annotations.json of AlpacaEval"
        )
    reader = reader_of(path, {name: read for name, read in READERS.items() if ".json" in name})
    if reader is None:
        raise UserError(f"{path}: annotations are read from .json and .jsonl, gzipped or not", "rename or convert it")
    rows: list[Annotation] = []
    seen: dict[str, str] = {}
    names: dict[str, set[str]] = {"generator_1": set(), "generator_2": set()}
    for row in reader(path, str(path)):
        annotation = _annotation(row.value, row.id)
        if annotation.instruction in seen:
            raise UserError(
                f"{row.id}: this instruction was judged before, at {seen[annotation.instruction]}:"
                f" {annotation.instruction[:60]!r}",
                "one row for each instruction: delete the other",
            )
        seen[annotation.instruction] = row.id
        rows.append(annotation)
        for key, found in names.items():
            found.add(str(row.value.get(key) or ""))
    if not rows:
        raise UserError(f"{path}: no annotations in it")
    for key, found in names.items():
        if len(found) > 1:
            raise UserError(f"{path}: {key} names several: {', '.join(sorted(found)[:3])}", "one file for each model")
    return Annotated(min(names["generator_2"]), min(names["generator_1"]), tuple(rows))


def check_count(name: str, rows: Sequence[Annotation], expected: int, allow_missing: bool, known: Sequence[str]) -> int:
    """How many of `expected` rows have no preference or are not there.

    known: instructions of all files, so that one that is missing can be named.

    Raises: UserError for more rows than expected, and, without allow_missing, for fewer.
    """
    if len(rows) > expected:
        raise UserError(
            f"measure.annotations.{name}: {len(rows)} rows, {expected} are expected; the first beyond is at"
            f" {rows[expected].where}",
            f"measure.expected={len(rows)} for another set of instructions",
        )
    judged = {row.instruction for row in rows if row.preference is not None}
    missing = expected - len(judged)
    if missing and not allow_missing:
        without = next((row.where for row in rows if row.preference is None), "")
        absent = next((words for words in known if words not in judged), None)
        first = f"; the first without a preference is {without}" if without else ""
        if not first and absent is not None:
            first = f"; the first that is not there is {absent[:60]!r}"
        raise UserError(
            f"measure.annotations.{name}: {missing} of {expected} instructions have no preference{first}",
            "have them judged, or measure.allow_missing=true to average over the others, as the leaderboard does",
        )
    return missing


def _annotation(row: Mapping[str, Any], where: str) -> Annotation:
    for key in ("instruction", "output_1", "output_2"):
        if not isinstance(row.get(key), str):
            raise UserError(f"{where}: {key} is not there, or no text", "that is no row of an AlpacaEval annotation")
    if "preference" not in row:
        raise UserError(f"{where}: preference is not there", "that is no row of an AlpacaEval annotation")
    return Annotation(
        row["instruction"],
        str(row.get("dataset") or ""),
        _preference(row["preference"], where),
        len(row["output_1"]),
        row["output_2"],
        where,
    )


def _preference(value: Any, where: str) -> float | None:
    """0 to 1. AlpacaEval writes 1 to 2, and 0 for a tie of its first judges."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or 1 <= value <= 2):
        raise UserError(
            f"{where}: preference is {value!r}", "it goes from 1 (baseline) to 2 (model), or is 0 for a tie"
        )
    return 0.5 if value == 0 else float(value) - 1
