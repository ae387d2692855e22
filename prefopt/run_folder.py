"""A run's folder: written whole, and never mixed with another run.

run.yaml          the resolved run, all that a rank reads
manifest.json     how it came about (`prefopt/manifest.py`)
data.json         where the encoded data lie          data_report.json, left_out.jsonl   what became of each row
held_out.jsonl    the rows that data.eval_size set aside
lock.json         who works here now (`prefopt/lock.py`)    exit.json    how the ranks ended, written by one of them
logs/rank-N.log   what rank N of the last start wrote to stderr
nonfinite.json    tensors and rows that ended the run; nonfinite.jsonl: those of each step that was skipped
samples.jsonl     answers before and after training, or of a model that has collapsed
token_budget.json tokens per micro-batch from which step on, where it was measured or had to be lowered
result.json       the last evaluation: the run is done
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from prefopt import durable
from prefopt.changes import NOTHING_TO_ALLOW, check_changes, check_nothing_allowed, compare
from prefopt.disk import unwritten
from prefopt.errors import RunError, UserError
from prefopt.settings import RunSettings

RUN, MANIFEST, LOCK, EXIT, RESULT = "run.yaml", "manifest.json", "lock.json", "exit.json", "result.json"
BUDGET = "token_budget.json"
OURS = {
    RUN,
    MANIFEST,
    LOCK,
    EXIT,
    "data.json",
    "data_report.json",
    "left_out.jsonl",
    "held_out.jsonl",
    "accelerate.yaml",
}
"""Files that the parent process writes: a folder with nothing else and no run.yaml is a start that was cut short."""

_OF_RANKS = ("metrics.jsonl", "samples.jsonl", "nonfinite.json", "nonfinite.jsonl", BUDGET)
"""Files that ranks may write before their first step is done."""


class State(Enum):
    """What a start finds."""

    NEW = "new"
    ANEW = "starts anew: it held a run that had done no step"
    RESUMED = "resumed"
    DONE = "done"


def read_json(path: Path, key: str = "dir") -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file. key: the setting that names another folder.

    Raises: UserError where the file holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read: {error}", f"restore it, or take another folder by {key}=FOLDER"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold an object", f"restore it, or take another folder by {key}=FOLDER")
    return value


def find_state(folder: Path, run: RunSettings, fingerprint: str | None, allowed: Sequence[str] = ()) -> State:
    """Whether `run` starts here, goes on here, or is done here. Changes nothing.

    run: as composed; on how many processes and by which engine is free to differ from start to
    start. fingerprint: of the data; None where it is not known yet and is not compared. allowed: keys in which it may
    differ from the run that is there (`prefopt/changes.py`). One that has done no step has nothing to protect: another
    takes its folder.

    Raises: UserError where the folder belongs to something else, with the list of differences, and where something is
        allowed that does not differ or need not be allowed.
    """
    if not folder.exists():
        check_nothing_allowed(folder, allowed, "is a new run, which nothing can differ from")
        return State.NEW
    if not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder", "another place: dir=FOLDER")
    if not (folder / RUN).exists():
        foreign = sorted(p.name for p in folder.iterdir() if p.name not in OURS and not p.name.startswith("."))
        if foreign:
            raise UserError(f"{folder} is not a run: it holds {foreign[0]} and no {RUN}", "another place: dir=FOLDER")
        check_nothing_allowed(folder, allowed, "is a new run, which nothing can differ from")
        return State.NEW
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        raise UserError(f"{folder} has {RUN} but no {MANIFEST}", "restore it, or take another folder by dir=FOLDER")
    found = compare(manifest, run, fingerprint)
    is_done = (folder / RESULT).exists()
    if found and not is_done and not has_done_step(folder):
        check_nothing_allowed(folder, allowed, "holds a run that has done no step", NOTHING_TO_ALLOW)
        return State.ANEW
    check_changes(folder, found, allowed, manifest, run, data_known=fingerprint is not None, is_done=is_done)
    return State.DONE if is_done else State.RESUMED


def has_done_step(folder: Path) -> bool:
    """Whether a run has done a step, or may have: it has a checkpoint, whole or not, a model, or a line of such a step.

    A last line that was cut in half is none: it was never followed by a checkpoint.

    Raises: UserError where metrics.jsonl cannot be read.
    """
    if any((folder / "checkpoints").glob("*")) or (folder / "model").exists():
        return True
    file = folder / "metrics.jsonl"
    try:
        *lines, _ = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}", "another folder: dir=FOLDER") from None
    return any(_is_of_step(line) for line in lines)


def _is_of_step(line: bytes) -> bool:
    try:
        return bool(json.loads(line)["step"] > 0)
    except (ValueError, KeyError, TypeError):
        return True  # damaged: whoever cannot tell takes nothing away


def clear_before_anew(folder: Path) -> None:
    """Take away what a run that had done no step has left besides what every start writes. The lock is held.

    run.yaml and the manifest stay until the new ones replace them: killed here, the folder is still one that any run
    takes.

    Raises: RunError where the disk does not let go of a file.
    """
    for name in (*_OF_RANKS, *sorted(OURS - {RUN, MANIFEST, LOCK})):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise unwritten(folder / name, error) from None


def make_folder(folder: Path) -> bool:
    """Make a run folder where there is none; True where it was made.

    Raises: RunError where it cannot be made.
    """
    if folder.is_dir():
        return False
    try:
        durable.make_folder(folder)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}", "another place: dir=FOLDER") from None
    return True
