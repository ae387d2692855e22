"""What the terminal shows while jobs run: the output of the only one, or a line per start and end."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from prefopt.console import PLAIN, is_live
from prefopt.sweeps.jobs import Job

BYTES_OF_TAIL = 8192
"""More than the last line of a metrics.jsonl."""


class Display(AbstractContextManager["Display"], Protocol):
    """Told by a pool what happens."""

    def started(self, job: Job, begins: int) -> None:
        """A job's process runs. begins: how long its log was before."""

    def look(self, running: Sequence[Job]) -> None:
        """Called several times a second."""

    def ended(self, job: Job) -> None:
        """A job has ended; its state is settled."""


class Echo:
    """Shows the log of the one job that runs, as it grows."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console()
        self.shown = 0

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def started(self, job: Job, begins: int) -> None:
        """See `Display`."""
        self.console.print(f"\njob {job.number}: {' '.join(job.varied)}, log in {job.log}", style="bold", **PLAIN)
        self.shown = begins

    def look(self, running: Sequence[Job]) -> None:
        """See `Display`."""
        for job in running:
            self._show(job)

    def ended(self, job: Job) -> None:
        """See `Display`."""
        self._show(job)

    def _show(self, job: Job) -> None:
        with open(job.log, "rb") as file:
            file.seek(self.shown)
            new = file.read()
        self.shown += len(new)
        sys.stdout.buffer.write(new)
        sys.stdout.buffer.flush()


class Board:
    """A line per start and end; on a terminal also how far each running job is."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self.console = Console()
        self.is_live = is_live(self.console)
        # No thread of its own: processes are started beside it.
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.looks = 0

    def __enter__(self) -> Board:
        if self.is_live:
            self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.is_live:
            self.live.stop()

    def started(self, job: Job, begins: int) -> None:
        """See `Display`."""
        where = " ".join(f"{key}={value}" for key, value in job.handle["environment"].items())
        self.console.print(f"job {job.number} starts: {' '.join(job.varied)} ({where}), log in {job.log}", **PLAIN)

    def look(self, running: Sequence[Job]) -> None:
        """See `Display`."""
        self.looks += 1
        if not self.is_live or self.looks % 5:
            return
        from rich.text import Text

        lines = [f"  job {job.number}  {' '.join(job.varied)}  {progress(Path(job.dir))}" for job in running]
        self.live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)

    def ended(self, job: Job) -> None:
        """See `Display`."""
        because = f": {job.error}" if job.error else ""
        self.console.print(f"job {job.number} {job.state} (exit code {job.exit_code}){because}", **PLAIN)


def progress(folder: Path) -> str:
    """How far a run is, by the last whole line of its metrics.jsonl."""
    lines = last_lines(folder)
    if not lines:
        return "preparing"
    loss = next((line["loss"] for line in reversed(lines) if "loss" in line), None)
    return f"step {lines[-1]['step']}" + ("" if loss is None else f"  loss {loss:.4g}")


def last_lines(folder: Path) -> list[dict[str, Any]]:
    """The last whole lines of a run's metrics.jsonl; empty where there are none yet."""
    try:
        with open(folder / "metrics.jsonl", "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - BYTES_OF_TAIL))
            tail = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    found = []
    for line in tail.split("\n")[:-1]:
        try:
            found.append(json.loads(line))
        except ValueError:  # the first one is cut
            continue
    return found
