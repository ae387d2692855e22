"""The ranks of this node as processes: started, told of signals, watched, and ended where the run is over elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from prefopt.early_rank import EarlyRank
from prefopt.errors import RunError, UserError, stopped_unsaved

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
GRACE = 15.0
"""Seconds in which ranks may end of themselves, once those of another node have."""


class Interrupted(BaseException):
    """A signal before there were ranks to tell it to. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def told(self) -> UserError:
        """As the command says it."""
        return stopped_unsaved(self.number)


@contextmanager
def interruptible() -> Iterator[None]:
    """While this process prepares a run a signal ends it by an exception, so that what it holds is given back.

    Raises: UserError for the signal that came, with exit code 128 + number; Ctrl-C stays a KeyboardInterrupt.
    """

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    previous = {n: signal.signal(n, interrupt) for n in _heeded() if n != signal.SIGINT}
    try:
        yield
    except Interrupted as caught:
        raise caught.told() from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _heeded() -> list[signal.Signals]:
    """What is handed on; under `nohup` not SIGHUP, which is the point of it."""
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    return [number for number in FORWARDED if number not in ignored]


def _started(arguments: list[str], added: dict[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(arguments, env={**os.environ, **added}, start_new_session=True)
    except OSError as error:
        raise RunError(f"{arguments[0]} cannot be started: {error.strerror}") from None


class RankGroup:
    """The launcher of this node's ranks, or the one rank there is.

    signal: the first signal that was handed on. ended_for: why the ranks were ended from here; empty if they were not.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.ended_for = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: threading.Timer | None = None
        self._guard = threading.Lock()

    def run(
        self,
        arguments: list[str],
        added: dict[str, str],
        started: Callable[[int], None],
        early: EarlyRank | None = None,
    ) -> int:
        """Start the ranks, forward signals to them, and give their exit code (128 + number for a signal).

        started: called with the process id. early: a process of this command that waits for a word. The ranks have a
        session of their own, so that each signal reaches them once, through this process, and not a second time from
        the terminal.

        Raises: RunError where the process cannot be started.
        """
        received: list[int] = []

        def forward(number: int, _frame: FrameType | None) -> None:
            if received and number != signal.SIGINT:  # said once; a second Ctrl-C insists
                return
            received.append(number)
            self.signal = self.signal or number
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(number)

        previous = {number: signal.signal(number, forward) for number in _heeded()}
        try:
            process = (None if early is None else early.told()) or _started(arguments, added)
            for number in received:  # one that came before there was anybody to forward it to
                process.send_signal(number)
            with self._guard:
                self._process = process
            if self.ended_for:
                self.kill()
            started(process.pid)
            code = process.wait()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return 128 - code if code < 0 else code

    def end(self, why: str, grace: float = GRACE) -> None:
        """End the ranks because of `why`, after `grace` seconds in which they may do so of themselves.

        Any thread may call.
        """
        with self._guard:
            if self.ended_for:
                return
            self.ended_for = why
            self._timer = threading.Timer(grace, self.kill)
            self._timer.daemon = True
            self._timer.start()

    def kill(self) -> None:
        """Kill the launcher, with which the ranks go (`prefopt/lifetime.py`)."""
        with self._guard:
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
