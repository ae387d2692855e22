"""The lock of a run folder: held by one start at a time, of whichever machine, and given up by the dead.

On its own machine an owner is a process that lives or not. Of another machine's nobody can tell, so the holder touches
the lock every few seconds, and its silence is measured by the clock of the file system that holds the lock: the clocks
of the machines may differ. SLURM knows more: a job that it started again, or knows no more, has left its lock behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefopt.disk import write_whole
from prefopt.errors import RunError, UserError
from prefopt.run_folder import LOCK, read_json

BEAT = 10.0
"""Seconds between two signs of life."""
SILENCE = 300.0
"""Seconds of silence after which the lock of another machine is taken over: many beats, and a file system's caches."""
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "CONFIGURING", "SIGNALING", "STAGE_OUT")
"""States in which a SLURM job may have processes."""


class Lock:
    """The right to write into a run folder, held by this process and the one it started.

    on_lost: called, from another thread, when the lock is no longer ours, with a sentence that says so.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.on_lost: Callable[[str], None] = lambda said: None
        self.record: dict[str, Any] = {
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "owners": [_process(os.getpid())],
            "slurm": _slurm_job(),
            "beats": True,
        }
        self._writing = threading.Lock()

    def add_child(self, pid: int) -> None:
        """Also held by process `pid`: it goes on writing where this process is killed."""
        self.record["owners"].append(_process(pid))
        with self._writing:
            write_whole(self.folder / LOCK, json.dumps(self.record))

    def beat(self, ended: threading.Event) -> None:
        """Give a sign of life every `BEAT` seconds, as long as the lock is ours."""
        while not ended.wait(BEAT):
            with self._writing:
                try:
                    held = read_json(self.folder / LOCK)
                    if held == self.record:
                        os.utime(self.folder / LOCK)  # by the clock of the file system
                        continue
                except (OSError, UserError):  # a file system that is away for a moment has not given the lock away
                    continue
            whose = f"a process of {held.get('host')} took it over" if held else "somebody deleted it"
            self.on_lost(f"the lock of {self.folder} is lost: {whose}")
            return


@contextmanager
def locked(folder: Path) -> Iterator[Lock]:
    """Hold the lock of a folder that exists.

    Raises: UserError where a living process holds it; a dead one's lock is taken over. RunError where the folder cannot
        be written.
    """
    lock = Lock(folder)
    with alone_in(folder):
        held = _read_lock(folder)
        if held is not None and (alive := _living_owner(held, folder)):
            raise UserError(
                f"{folder} is in use by {alive} since {held.get('since')}",
                f"wait for it or stop it; if it is surely dead, delete {folder / LOCK}",
            )
        write_whole(folder / LOCK, json.dumps(lock.record))
    ended = threading.Event()
    beating = threading.Thread(target=lock.beat, args=(ended,), daemon=True)
    beating.start()
    try:
        yield lock
    finally:
        ended.set()
        beating.join()
        with suppress(OSError, UserError):  # where the disk fails the lock stays, of a dead process, and is taken over
            if read_json(folder / LOCK) == lock.record:
                (folder / LOCK).unlink(missing_ok=True)


def holder(folder: Path) -> str:
    """Words for who works in a folder now; empty where nobody does.

    Raises: UserError where its lock cannot be read.
    """
    held = _read_lock(folder)
    return "" if held is None else _living_owner(held, folder)


def process_of(pid: int) -> dict[str, Any]:
    """A process of this machine that runs now, so that `is_alive` knows it again."""
    return {"host": socket.gethostname(), **_process(pid)}


def is_alive(process: Mapping[str, Any]) -> bool:
    """Whether a process still runs. Of another host nobody can tell, so it counts as running."""
    return bool(_living_owner({"host": process["host"], "owners": [process]}, Path()))


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """No other start is in here meanwhile; whoever comes waits. As far as the file system's own locks reach.

    Raises: RunError where the folder is gone.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:  # another start made it, came to nothing, and took it away again
        raise RunError(f"{folder} cannot be locked: {error.strerror}", "give the same command again") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def present_at(file: Path) -> Iterator[None]:
    """This process works with a file that is there; any number may. `is_anyone_at` tells, as far as locks reach."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        with suppress(OSError):  # without locks nobody can tell, and `is_anyone_at` says so
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def is_anyone_at(file: Path) -> bool:
    """Whether a living process is `present_at` a file; True where nobody can tell."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _read_lock(folder: Path) -> dict[str, Any] | None:
    try:
        return read_json(folder / LOCK)
    except UserError as error:
        raise UserError(error.message, f"if nothing runs in this folder, delete {folder / LOCK}") from None


def _process(pid: int) -> dict[str, Any]:
    import psutil

    return {"pid": pid, "started": psutil.Process(pid).create_time()}


def _slurm_job() -> dict[str, Any] | None:
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    restarts = os.environ.get("SLURM_RESTART_COUNT", "")
    cluster = os.environ.get("SLURM_CLUSTER_NAME", "")
    return {"job": job, "restarts": int(restarts) if restarts.isdigit() else 0, "cluster": cluster}


def _living_owner(held: dict[str, Any], folder: Path) -> str:
    """Words for a living owner; empty where all are dead."""
    import psutil

    if held.get("host") != socket.gethostname():
        return _living_elsewhere(held, folder)
    for owner in held.get("owners", []):
        try:
            process = psutil.Process(owner["pid"])
            # A number is given again: only with the same start time is it the same process.
            if abs(process.create_time() - owner["started"]) < 2 and process.status() != psutil.STATUS_ZOMBIE:
                return f"process {owner['pid']}"
        except psutil.NoSuchProcess:
            continue
    return ""


def _living_elsewhere(held: dict[str, Any], folder: Path) -> str:
    """As `_living_owner`, for another machine. Who gives no signs of life, as prefopt 0.1 did, counts as living."""
    who, job = f"a process of {held.get('host')}", held.get("slurm")
    if job is not None:
        own = _slurm_job()
        if own is not None and own["job"] == job["job"] and own["restarts"] > job["restarts"]:
            return ""  # this job's own earlier start, which SLURM ended before it started the job again
        if _has_ended(job, own):
            return ""
        who += f" (SLURM job {job['job']})"
    if not held.get("beats"):
        return who
    silence = _silence(folder)
    return "" if silence > SILENCE else f"{who}, heard of {max(silence, 0):.0f} seconds ago,"


def _has_ended(job: dict[str, Any], own: dict[str, Any] | None) -> bool:
    """Whether SLURM answers and says that nothing of the job runs; False where nobody can tell."""
    squeue = shutil.which("squeue")
    if squeue is None or (own is not None and own["cluster"] != job["cluster"]):
        return False
    words = [squeue, "--noheader", "--jobs", str(job["job"]), "--format", "%T"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    if done.returncode != 0:
        return "Invalid job id" in done.stderr
    return not set(done.stdout.split()) & set(RUNNING)


def _silence(folder: Path) -> float:
    """Seconds since the lock was touched. Both times are the file system's."""
    probe = folder / f".clock-{socket.gethostname()}-{os.getpid()}"
    try:
        with open(probe, "w") as file:
            file.write(" ")
        now = probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
    with open(folder / LOCK) as file:  # opened: a network file system then asks its server
        return now - os.fstat(file.fileno()).st_mtime
