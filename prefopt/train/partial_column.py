"""Scoring that goes on where a killed run left it: each few thousand rows are on the disk before the next are scored.

CACHE/reference/.KEY.npy.part    the numbers of the first rows, float64, nothing else

Without it a run whose scoring takes longer than its time limit would begin anew after each requeue, and never train.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from prefopt.errors import RunError
from prefopt.model.forward import Forward
from prefopt.train.column_check import compare, rows_to_check
from prefopt.train.engine import Engine
from prefopt.train.scoring import ROWS_AT_ONCE, Measure, score

ELSEWHERE = "free some space or set data.cache_dir to a folder that can be written"


def part_of(file: Path) -> Path:
    """Where the first rows of the column in `file` lie until the last are scored."""
    return file.with_name(f".{file.name}.part")


def score_in_parts(
    engine: Engine, model: Forward, measure: Measure, file: Path, rows_at_once: int = ROWS_AT_ONCE
) -> tuple[np.ndarray, int]:
    """The whole column, and how many of its rows an earlier start had scored. Every rank must call.

    The lock of `file` is held. Rows that were there are believed once a few of them, scored again, give the same.

    Raises: RunError where the part cannot be written, or holds other numbers than the model gives.
    """
    part, ends = part_of(file), measure.row_offsets
    found = engine.gather(_read(part, ends) if engine.is_main else None)[0]
    done = int(np.searchsorted(ends, len(found)))
    if done:
        places = rows_to_check(measure, file.stem)
        places = places[places < done]
        compare(engine.run, measure, part, found, places, score(engine, model, measure, places))
    pieces, is_kept = [found], True
    for first in range(done, len(measure.rows), rows_at_once):
        piece = score(engine, model, measure, np.arange(first, min(first + rows_at_once, len(measure.rows))))
        is_kept = is_kept and bool(np.isfinite(piece).all())
        if engine.is_main and is_kept:
            _append(part, piece)
        pieces.append(piece)
    return np.concatenate(pieces), done


def _read(part: Path, ends: np.ndarray) -> np.ndarray:
    """The numbers of whole rows in a part, cut where a row was begun; empty where there is none that can be read."""
    try:
        column = np.fromfile(part, dtype=np.float64)
    except OSError:
        column = np.zeros(0)
    whole = int(ends[np.searchsorted(ends, len(column), side="right") - 1]) if len(column) <= ends[-1] else 0
    column = column[:whole]
    if not np.isfinite(column).all():
        column = column[:0]
    if part.exists():
        os.truncate(part, column.nbytes)
    return column


def _append(part: Path, piece: np.ndarray) -> None:
    try:
        with open(part, "ab") as out:
            out.write(piece.tobytes())
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise RunError(f"{part}: cannot be written ({error.strerror or error})", ELSEWHERE) from error
