"""A run's folder: written whole, and never mixed with another run.

run.yaml          the resolved run, all that a rank reads
manifest.json     how it came about (`prefopt/manifest.py`)
data.json         where the encoded data lie          data_report.json, left_out.jsonl   what became of each row
lock.json         who works here now (`prefopt/lock.py`)    exit.json    how the ranks ended, written by one of them
logs/rank-N.log   what rank N of the last start wrote to stderr
nonfinite.json    tensors and rows that ended the run; nonfinite.jsonl: those of each step that was skipped
samples.jsonl     answers before and after training, or of a model that has collapsed
token_budget.json tokens per micro-batch from which step on, where it was measured or had to be lowered
result.json       the last evaluation: the run is done
"""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Any

from prefopt import durable
from prefopt.config import deciding
from prefopt.errors import RunError, UserError
from prefopt.fill import from_mapping
from prefopt.manifest import differences
from prefopt.settings import RunSettings

RUN, MANIFEST, LOCK, EXIT, RESULT = "run.yaml", "manifest.json", "lock.json", "exit.json", "result.json"
OURS = {RUN, MANIFEST, LOCK, EXIT, "data.json", "data_report.json", "left_out.jsonl", "accelerate.yaml"}
"""Files that the parent process writes: a folder with nothing else and no run.yaml is a start that was cut short."""


class State(Enum):
    """What a start finds."""

    NEW = "new"
    RESUMED = "resumed"
    DONE = "done"


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all.

    Raises: RunError where it cannot be written; an older file of that name is untouched.
    """
    try:
        durable.write_text(path, text)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}", "another place: dir=FOLDER") from None


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file.

    Raises: UserError where the file holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", "restore it, or take another folder by dir=FOLDER") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold an object", "restore it, or take another folder by dir=FOLDER")
    return value


def find_state(folder: Path, run: RunSettings, fingerprint: str | None) -> State:
    """Whether `run` starts here, goes on here, or is done here. Changes nothing.

    run: as composed; on how many processes and by which engine is free to differ from start to
    start. fingerprint: of the data; None where it is not known yet and is not compared.

    Raises: UserError where the folder belongs to something else, with the list of differences.
    """
    if not folder.exists():
        return State.NEW
    if not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder", "another place: dir=FOLDER")
    if not (folder / RUN).exists():
        foreign = sorted(p.name for p in folder.iterdir() if p.name not in OURS and not p.name.startswith("."))
        if foreign:
            raise UserError(f"{folder} is not a run: it holds {foreign[0]} and no {RUN}", "another place: dir=FOLDER")
        return State.NEW
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        raise UserError(f"{folder} has {RUN} but no {MANIFEST}", "restore it, or take another folder by dir=FOLDER")
    found = differences(deciding(from_mapping(RunSettings, manifest["settings"])), deciding(run))
    if fingerprint is not None:
        found += differences({"data": manifest["data_fingerprint"]}, {"data": fingerprint})
    if found:
        listed = "\n  ".join(dict.fromkeys(found))
        raise UserError(
            f"{folder} holds another run; it is left as it is. What differs (there -> here):\n  {listed}",
            "start a new run by dir=FOLDER, or repeat the settings of this one",
        )
    return State.DONE if (folder / RESULT).exists() else State.RESUMED


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
