"""One step as a child process: its output kept and shown, signals handed on to it, and its end with this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from prefopt.disk import unwritten
from prefopt.errors import RunError
from prefopt.lifetime import die_with_parent
from prefopt.rank_group import FORWARDED

STARTS = "prefopt rounds: starts"
"""Begins the line that every start puts into a step's log."""
SECONDS_PER_LOOK = 0.1
BYTES_OF_TAIL = 16384


class Children:
    """The child that runs now, if any. signal: the first one that came; none is started after it.

    ended_for: why the child was killed from here; empty if it was not.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.ended_for = ""
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def heeding(self) -> Iterator[None]:
        """Meanwhile signals do not end this process: they are handed on, and noted."""
        # Under `nohup` SIGHUP stays ignored, which is the point of it.
        heeded = [n for n in FORWARDED if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
        previous = {number: signal.signal(number, self._forward) for number in heeded}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def run(self, words: list[str], log: Path, label: str) -> int:
        """`prefopt WORDS` to its end: its exit code, 128 + number for a signal.

        Raises: RunError where it cannot be started, or its log cannot be written.
        """
        try:
            out = open(log, "ab")  # noqa: SIM115 (closed below, also where it cannot be written)
        except OSError as error:
            raise unwritten(log, error) from None
        with out:
            _write(out, log, f"{STARTS} {datetime.now(UTC).isoformat(timespec='seconds')} prefopt {' '.join(words)}\n")
            begins = out.tell()
            process = self._start(words, out)
            echo = _Echo(log, label, begins)
            while process.poll() is None:
                time.sleep(SECONDS_PER_LOOK)
                echo.look()
            echo.look(to_the_end=True)
        self._process = None
        code = process.returncode
        return 128 - code if code < 0 else code

    def kill(self, why: str) -> None:
        """End the child at once because of `why`; from any thread. Its ranks go with it (`prefopt/lifetime.py`)."""
        self.ended_for = self.ended_for or why
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()

    def _start(self, words: list[str], out: BinaryIO) -> subprocess.Popen[bytes]:
        try:
            # A session of its own: a signal from the terminal reaches it once, through `_forward`.
            process = subprocess.Popen(
                [sys.executable, "-m", "prefopt.cli", *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid()),  # before it can outlive a loop that is killed now
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:
            raise RunError(f"{sys.executable} cannot be started: {error.strerror}") from None
        self._process = process
        if self.signal is not None:  # it came before there was a process to hand it to
            process.send_signal(self.signal)
        if self.ended_for:
            process.kill()
        return process

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None and number != signal.SIGINT:  # said once; a second Ctrl-C insists
            return
        self.signal = self.signal or number
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


class _Echo:
    """Shows what a log gains, line by line, with the step's name in front; until nobody reads any more."""

    def __init__(self, log: Path, label: str, begins: int) -> None:
        self.log, self.label, self.shown = log, label, begins
        self.is_read = True

    def look(self, to_the_end: bool = False) -> None:
        """Show whole lines; to_the_end: also one that has no end."""
        with open(self.log, "rb") as file:
            file.seek(self.shown)
            new = file.read()
        if not to_the_end:
            new = new[: new.rfind(b"\n") + 1]
        self.shown += len(new)
        lines = new.decode("utf-8", errors="replace").replace("\r", "\n").split("\n")
        text = "".join(f"{self.label} | {line}\n" for line in (lines if lines[-1] else lines[:-1]))
        if not text or not self.is_read:
            return
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:  # the step goes on, and its log has it
            self.is_read = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def last_lines(log: Path, count: int = 5) -> list[str]:
    """The last lines of the newest start in a step's log that are not empty."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - BYTES_OF_TAIL))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = text.rpartition(STARTS)[2].split("\n")
    return [line.rstrip() for line in lines[1:] if line.strip()][-count:]


def _write(out: BinaryIO, log: Path, text: str) -> None:
    try:
        out.write(text.encode("utf-8", errors="replace"))
        out.flush()
    except OSError as error:
        raise unwritten(log, error) from None
