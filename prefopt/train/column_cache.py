"""Columns of scores kept between runs: found by content, verified, and scored by one run while the others wait.

CACHE/reference/KEY.npy, CACHE/margins/KEY.npy    one number per response or per token, float64
               .KEY.npy.part                      the first rows, until all are scored (`partial_column.py`)
               KEY.lock                           held by the run that scores; the system frees it if that run dies
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from prefopt.errors import RunError
from prefopt.model.forward import Forward
from prefopt.settings import RunSettings
from prefopt.train.column_check import compare, rows_to_check
from prefopt.train.engine import Engine
from prefopt.train.partial_column import ELSEWHERE, score_in_parts
from prefopt.train.rows import Rows
from prefopt.train.scoring import Measure, score

CODE_VERSION = 1
"""Raise it whenever a change in scoring or in the forward changes the numbers: old columns are then not found."""

SECONDS_PER_WAIT = 5.0
"""How long rank 0 waits for a lock before the ranks meet: one wait beyond the process group's timeout would end it."""


def column_key(run: RunSettings, rows: Rows, layout: str, model: str, kind: str = "") -> str:
    """Hash of all that decides a column: weights, rows (with tokenizer, template and lengths), precision, layout, code.

    model: the fingerprint of the model that scores. kind: what is measured, where it is not the log-probabilities.
    """
    content = {
        "code": CODE_VERSION,
        "model": model,
        "rows": rows.data.fingerprint,
        "dtype": run.model.dtype if run.model.base == "plain" else f"{run.model.dtype} {run.model.base}",
        "autocast": run.train.autocast,
        "layout": layout,
        **({"kind": kind} if kind else {}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def cached_column(
    engine: Engine,
    measure: Measure,
    file: Path,
    what: str,
    forward: Callable[[], AbstractContextManager[Forward]],
    say: Callable[[str], None],
    unverified: str = "",
) -> tuple[np.ndarray, int]:
    """The column in `file`, scored now where it is not there; also the number of rows scored. Every rank must call.

    forward: opens the model. what: for messages. unverified: why a column that is there cannot be scored again here;
    it is then believed as it is. Of several runs that start at once one scores and the others wait for it.

    Raises: RunError where the file holds other numbers than the model gives.
    """
    rows, about = measure.rows, f"{what} on {len(measure.rows)} rows of {measure.rows.name}"
    lock = FileLock(file.with_suffix(".lock"))
    damage = _damage(engine, file, measure)
    said_to_wait = False
    if damage is not None:
        if engine.is_main:
            _make_folder(file.parent)
        while not engine.gather(engine.is_main and _taken(lock))[0]:
            if not said_to_wait:
                say(f"waiting for another run that is scoring {about} ({lock.lock_file})")
                said_to_wait = True
    try:
        if damage is not None:
            damage = _damage(engine, file, measure)  # meanwhile another run may have scored it
        if damage is not None:
            if damage:
                say(f"{file}: {damage}; it is scored anew")
            say(f"scoring {about}")
            with forward() as model:
                column, done = score_in_parts(engine, model, measure, file)
            if done:
                say(f"{done} of them were scored by an earlier start")
            if engine.is_main and np.isfinite(column).all():
                _write(file, column)
            engine.barrier()
            return column, len(rows) - done
    finally:
        lock.release()
    column = np.load(file)
    if unverified:
        say(f"{about}: from the cache, not verified: {unverified} ({file})")
        return column, 0
    places = rows_to_check(measure, file.stem)
    with forward() as model:
        largest = compare(engine.run, measure, file, column, places, score(engine, model, measure, places))
    say(f"{about}: from the cache; {len(places)} of them give the same numbers again (to {largest:.1e})")
    return column, 0


def _taken(lock: FileLock) -> bool:
    """Whether rank 0 holds the lock after a short wait."""
    try:
        lock.acquire(timeout=SECONDS_PER_WAIT, poll_interval=0.1)
    except Timeout:
        return False
    except OSError as error:
        raise RunError(f"{lock.lock_file}: cannot be locked ({error.strerror or error})", ELSEWHERE) from error
    return True


def _damage(engine: Engine, file: Path, measure: Measure) -> str | None:
    """What is wrong with a column, "" where there is none yet, None where it is whole: as rank 0 sees it."""
    return engine.gather(damage(file, int(measure.offsets[-1])) if engine.is_main else None)[0]


def damage(file: Path, length: int) -> str | None:
    """What is wrong with a file that should hold `length` finite numbers: "" if it is absent, None if it is whole."""
    try:
        column = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, EOFError) as error:
        return f"cannot be read ({' '.join(str(error).split())[:100]})"
    if not isinstance(column, np.ndarray) or column.shape != (length,) or column.dtype != np.float64:
        held = f"{column.dtype} of shape {column.shape}" if isinstance(column, np.ndarray) else "an archive"
        return f"holds {held} and not {length} float64 numbers"
    return None if np.isfinite(column).all() else "holds numbers that are not finite"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror or error})", ELSEWHERE) from error


def _write(file: Path, column: np.ndarray) -> None:
    """A column into the cache, whole or not at all; the lock is held, so that drafts found here are dead ones."""
    for left in file.parent.glob(f".{file.name}.*"):
        left.unlink(missing_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as out:
            np.save(out, column)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"{file}: cannot be written ({error.strerror or error})", ELSEWHERE) from error
