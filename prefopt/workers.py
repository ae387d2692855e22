"""Processes of a command: what each runs on, how they hear of signals, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, NamedTuple

from prefopt.errors import RunError, UserError
from prefopt.lifetime import die_with_parent
from prefopt.ranks import num_cores, visible_gpus

STOPPED = 75
"""Exit code: stopped by a signal; the same command goes on."""

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Devices(NamedTuple):
    """names: of torch, one per process. environment: what each process is given besides."""

    names: list[str]
    environment: dict[str, str]


def devices_of(device: str, num_processes: int | None) -> Devices:
    """Where the processes of this machine work. device: auto, cpu or cuda. num_processes: None: as many as GPUs, or 1.

    Raises: UserError for cuda without a GPU.
    """
    gpus = [] if device == "cpu" else visible_gpus()
    if device == "cuda" and not gpus:
        raise UserError("device=cuda: there is no GPU here", "device=auto or cpu")
    count = num_processes or len(gpus) or 1
    threads = {} if gpus else {"OMP_NUM_THREADS": str(max(1, num_cores() // count)), "OMP_WAIT_POLICY": "passive"}
    return Devices([f"cuda:{number % len(gpus)}" if gpus else "cpu" for number in range(count)], threads)


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


class Workers:
    """The processes of this start: told of signals, and ended where one of them fails."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Workers:
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
        """0, or the exit code of the first that failed.

        Raises: RunError where one was killed; UserError with exit code 75 where a signal stopped them.
        """
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
