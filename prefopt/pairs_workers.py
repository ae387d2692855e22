"""The processes of a `prefopt pairs`: which part of the chunks each does, and how they end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

from prefopt.errors import RunError, UserError
from prefopt.lifetime import die_with_parent
from prefopt.pairs.folder import Folder, settings_text
from prefopt.ranks import num_cores, visible_gpus

STOPPED = 75
"""Exit code: stopped by a signal; the same command goes on."""

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def shard_of(said: str | None) -> tuple[int, int]:
    """Which part of how many this start does.

    Raises: UserError for anything but K/N, and for slurm outside of an array or a step, or in an array with gaps.
    """
    if said is None:
        return 0, 1
    if said == "slurm":
        return _shard_of_slurm()
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", said)
    if found is None or not int(found[1]) < int(found[2]):
        raise UserError(f"shard={said}: expected K/N with K from 0 to N - 1", "shard=0/4 to shard=3/4, or shard=slurm")
    return int(found[1]), int(found[2])


def _shard_of_slurm() -> tuple[int, int]:
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    if task is None and "SLURM_PROCID" in os.environ:
        return int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    if task is None:
        raise UserError(
            "shard=slurm: this is neither a task of a job array nor of a step", "sbatch --array=0-3, or srun"
        )
    first, last = (int(os.environ.get(f"SLURM_ARRAY_TASK_{end}", task)) for end in ("MIN", "MAX"))
    step, count = int(os.environ.get("SLURM_ARRAY_TASK_STEP", "1")), int(os.environ["SLURM_ARRAY_TASK_COUNT"])
    if (last - first) // step + 1 != count:
        raise UserError(
            f"shard=slurm: the job array has {count} tasks from {first} to {last}: which part is whose, cannot be told",
            f"sbatch --array=0-{count - 1}, or shard=K/N",
        )
    return (int(task) - first) // step, count


@contextmanager
def stoppable() -> Iterator[None]:
    """Meanwhile a signal that asks to stop ends this start with exit code 75, wherever it is; once more does nothing.

    Raises: UserError where one came.
    """
    was_asked = False

    def heed(number: int, _frame: FrameType | None) -> None:
        nonlocal was_asked
        if not was_asked:
            was_asked = True
            raise _stopped(number)

    previous = {number: signal.signal(number, heed) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _stopped(number: int) -> UserError:
    name = signal.Signals(number).name
    return UserError(f"stopped by {name}", "the same command goes on from what is there", STOPPED)


def run_workers(folder: Folder, shard: tuple[int, int]) -> int:
    """Do this start's part by processes of their own; 0, or the exit code of one that failed and has said why.

    Raises: RunError where one was killed; UserError with exit code 75 where a signal stopped them, and for device=cuda
        without a GPU.
    """
    settings = folder.settings
    if folder.is_judged:
        return 0
    gpus = [] if settings.device == "cpu" else visible_gpus()
    if settings.device == "cuda" and not gpus:
        raise UserError("device=cuda: there is no GPU here", "device=auto or cpu")
    count = settings.num_processes or len(gpus) or 1
    threads = {} if gpus else {"OMP_NUM_THREADS": str(max(1, num_cores() // count)), "OMP_WAIT_POLICY": "passive"}
    with _Workers() as workers:
        for number in range(count):
            device = f"cuda:{number % len(gpus)}" if gpus else "cpu"
            part = [str(place) for place in (*shard, number, count)]
            command = [sys.executable, "-m", "prefopt.pairs", str(folder.path), *part, device]
            workers.start(command, settings_text(settings), threads)
        return workers.wait()


class _Workers:
    """The processes of this start: told of signals, and ended where one of them fails."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _Workers:
        # Not an error right away, as in `stoppable`: it might come between the start of a process and our note of it.
        for number in _STOPS:
            self._previous[number] = signal.signal(number, self._heed)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def start(self, command: list[str], settings: str, added: dict[str, str]) -> None:
        """Start a process and give it its settings."""
        process = subprocess.Popen(
            command,
            env={**added, **os.environ},
            stdin=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),  # before it can outlive a command that is killed now
        )
        self._processes.append(process)
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: `wait` says how
            process.stdin.write(settings.encode())
            process.stdin.close()

    def wait(self) -> int:
        """0, or the exit code of the first that failed. Raises: as `run_workers`."""
        failed = 0
        while not failed and self._signal is None and any(process.poll() is None for process in self._processes):
            time.sleep(0.05)
            failed = self._first_failure()
        failed = failed or self._first_failure()
        self._end()
        # A batch system tells all processes of a job, and a worker may hear of it first.
        stopped = self._signal or (-failed if -failed in _STOPS else None)
        if stopped is not None:
            raise _stopped(stopped)
        if failed < 0:
            raise RunError(
                f"a process was ended by {signal.Signals(-failed).name} (SIGKILL is often the system, out of memory)",
                "the same command goes on from what is there; tokens_per_batch=N holds less at a time",
            )
        return failed

    def _first_failure(self) -> int:
        return next((code for process in self._processes if (code := process.poll())), 0)

    def _heed(self, number: int, _frame: FrameType | None) -> None:
        self._signal = self._signal or number

    def _end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            process.wait()
