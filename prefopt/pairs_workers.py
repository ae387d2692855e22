"""The processes of a `prefopt pairs`: which part of the chunks each does, and how they end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from prefopt.errors import RunError, UserError
from prefopt.pairs.folder import Folder, settings_text
from prefopt.ranks import num_cores, visible_gpus

STOPPED = 75
"""Exit code: stopped by a signal; the same command goes on."""


def shard_of(said: str | None) -> tuple[int, int]:
    """Which part of how many this start does.

    Raises: UserError for anything but K/N, and for slurm outside of an array or a step.
    """
    if said is None:
        return 0, 1
    if said == "slurm":
        task, first = os.environ.get("SLURM_ARRAY_TASK_ID"), os.environ.get("SLURM_ARRAY_TASK_MIN", "0")
        if task is not None:
            step = int(os.environ.get("SLURM_ARRAY_TASK_STEP", "1"))
            return (int(task) - int(first)) // step, int(os.environ["SLURM_ARRAY_TASK_COUNT"])
        if "SLURM_PROCID" in os.environ:
            return int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
        raise UserError(
            "shard=slurm: this is neither a task of a job array nor of a step", "sbatch --array=0-3, or srun"
        )
    found = re.fullmatch(r"(\d+)/(\d+)", said)
    if found is None or not int(found[1]) < int(found[2]):
        raise UserError(f"shard={said}: expected K/N with K from 0 to N - 1", "shard=0/4 to shard=3/4, or shard=slurm")
    return int(found[1]), int(found[2])


def run_workers(folder: Folder, shard: tuple[int, int]) -> int:
    """Do this start's part by processes of their own; 0, 75 where a signal stopped them, or the exit code of a failure.

    Raises: RunError where one was killed; UserError for device=cuda without a GPU.
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
            part = [str(shard[0] * count + number), str(shard[1] * count)]
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
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            self._previous[number] = signal.signal(number, self._heed)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def start(self, command: list[str], settings: str, added: dict[str, str]) -> None:
        """Start a process and give it its settings."""
        process = subprocess.Popen(command, env={**added, **os.environ}, stdin=subprocess.PIPE, start_new_session=True)
        self._processes.append(process)
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: `wait` says how
            process.stdin.write(settings.encode())
            process.stdin.close()

    def wait(self) -> int:
        """The exit code: 0, 75 where a signal stopped them, or that of the first that failed."""
        while any(process.poll() is None for process in self._processes):
            if self._signal is not None or any(process.poll() for process in self._processes):
                break
            time.sleep(0.05)
        self._end()
        if self._signal is not None:
            name = signal.Signals(self._signal).name
            print(f"prefopt: stopped by {name}; the same command goes on from what is there", file=sys.stderr)
            return STOPPED
        codes = [process.returncode for process in self._processes if process.returncode not in (0, -signal.SIGTERM)]
        killed = next((code for code in codes if code < 0), None)
        if killed is not None:
            raise RunError(
                f"a process was ended by {signal.Signals(-killed).name} (SIGKILL is often the system, out of memory)",
                "the same command goes on from what is there; tokens_per_batch=N holds less at a time",
            )
        return codes[0] if codes else 0

    def _heed(self, number: int, _frame: FrameType | None) -> None:
        self._signal = self._signal or number

    def _end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            process.wait()
