"""A run's folder: opened by one process at a time, written whole, and never mixed with another run.

run.yaml          the resolved run, all that a rank reads
manifest.json     how it came about (`prefopt/manifest.py`)
data.json         where the encoded data lie          data_report.json, left_out.jsonl   what became of each row
lock.json         who works here now                  exit.json    how the ranks ended, written by one of them
token_budget.json tokens per micro-batch from which step on, where it was measured or had to be lowered
result.json       the last evaluation: the run is done
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from prefopt.config import deciding
from prefopt.errors import RunError, UserError
from prefopt.manifest import differences
from prefopt.settings import RunSettings, from_mapping

RUN, MANIFEST, LOCK, EXIT, RESULT = "run.yaml", "manifest.json", "lock.json", "exit.json", "result.json"
OURS = {RUN, MANIFEST, LOCK, EXIT, "data.json", "data_report.json", "left_out.jsonl", "accelerate.yaml"}
"""Files that the parent process writes: a folder with nothing else and no run.yaml is a start that was cut short."""

DECIDING = ("device", "num_processes")
"""What of the world must stay: on how many nodes the ranks are does not matter."""


class State(Enum):
    """What a start finds."""

    NEW = "new"
    RESUMED = "resumed"
    DONE = "done"


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all.

    Raises: RunError where it cannot be written; an older file of that name is untouched.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
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


def find_state(folder: Path, run: RunSettings, world: Mapping[str, Any], fingerprint: str | None) -> State:
    """Whether `run` starts here, goes on here, or is done here. Changes nothing.

    run: as composed. fingerprint: of the data; None where it is not known yet and is not compared.

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
    found += differences(*({"launch": {key: of[key] for key in DECIDING}} for of in (manifest["world"], world)))
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
        folder.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}", "another place: dir=FOLDER") from None
    return True


class Lock:
    """The right to write into a run folder, held by this process and the one it started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record: dict[str, Any] = {
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "owners": [_process(os.getpid())],
        }

    def add_child(self, pid: int) -> None:
        """Also held by process `pid`: it goes on writing where this process is killed."""
        self.record["owners"].append(_process(pid))
        write_whole(self.folder / LOCK, json.dumps(self.record))


@contextmanager
def locked(folder: Path) -> Iterator[Lock]:
    """Hold the lock of a folder that exists.

    Raises: UserError where a living process holds it; a dead one's lock is taken over. RunError where the folder cannot
        be written.
    """
    lock = Lock(folder)
    with _alone(folder):
        held = _read_lock(folder)
        if held is not None and (alive := _living_owner(held)):
            raise UserError(
                f"{folder} is in use by {alive} since {held.get('since')}",
                f"wait for it or stop it; if it is surely dead, delete {folder / LOCK}",
            )
        write_whole(folder / LOCK, json.dumps(lock.record))
    try:
        yield lock
    finally:
        (folder / LOCK).unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other start of this machine reads or takes the lock file meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read_lock(folder: Path) -> dict[str, Any] | None:
    try:
        return read_json(folder / LOCK)
    except UserError as error:
        raise UserError(error.message, f"if nothing runs in this folder, delete {folder / LOCK}") from None


def _process(pid: int) -> dict[str, Any]:
    import psutil

    return {"pid": pid, "started": psutil.Process(pid).create_time()}


def _living_owner(held: dict[str, Any]) -> str:
    """Words for a living owner; empty where all are dead. Of another host nobody can tell, so it counts as living."""
    import psutil

    if held.get("host") != socket.gethostname():
        return f"a process of {held.get('host')}"
    for owner in held.get("owners", []):
        try:
            process = psutil.Process(owner["pid"])
            # A number is given again: only with the same start time is it the same process.
            if abs(process.create_time() - owner["started"]) < 2 and process.status() != psutil.STATUS_ZOMBIE:
                return f"process {owner['pid']}"
        except psutil.NoSuchProcess:
            continue
    return ""
