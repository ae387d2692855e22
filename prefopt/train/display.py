"""What a person sees while a run goes on: a live bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from prefopt.console import PLAIN, is_live

SECONDS_BETWEEN_LINES = 2.0
ROOM_FOR_A_BAR = 120
"""Columns that a bar takes with the figures beside it."""


class Display:
    """Progress of the main rank; silent on the others. Use as a context manager around the loop."""

    def __init__(self, console: Console, shown: bool) -> None:
        self.console = console
        self.shown = shown
        self._live = shown and is_live(console)
        summary = TextColumn("{task.fields[summary]}")
        bar: list[ProgressColumn] = [
            *(TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn()),
            *(TimeRemainingColumn(compact=True), summary),
        ]
        # One text, of which a narrow terminal cuts the end: of several columns it would cut each.
        text = [TextColumn("{task.description} {task.completed}/{task.total}  {task.fields[summary]}")]
        self._progress = Progress(*(bar if console.width >= ROOM_FOR_A_BAR else text), console=console)
        self._task = self._progress.add_task("step", total=None, summary="")
        self._last_line = 0.0
        self._num_steps = 0

    def __enter__(self) -> Display:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._progress.stop()

    def say(self, text: str) -> None:
        """A line of text, above the bar where there is one."""
        if self.shown:
            self.console.print(text, **PLAIN)

    def steps(self, done: int, total: int) -> None:
        """Set the bar."""
        self._num_steps = total
        self._progress.update(self._task, completed=done, total=total)

    def step(self, done: int, metrics: dict[str, float]) -> None:
        """Show a finished step; plain lines are at most one every two seconds, the last step always."""
        summary = summarise(metrics)
        if self._live:
            self._progress.update(self._task, completed=done, summary=summary)
        elif self.shown and (done == self._num_steps or time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES):
            self._last_line = time.monotonic()
            self.say(f"step {done}/{self._num_steps}  {summary}")

    def fallen(self, before: Mapping[str, float], after: Mapping[str, float]) -> None:
        """A line for each evaluation set on which rewards order most pairs wrongly after training, and not before."""
        for line in orders_wrongly(before, after):
            self.say(line)


def orders_wrongly(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """What is said of accuracies that training has brought below one half: a loss whose sign is turned does that.

    before, after: metrics of the evaluations before and after training, by names like eval/heldout/rewards/accuracy.
    """
    return [
        f"{name} was {before[name]:.3f} before training and is {after[name]:.3f}: in most pairs the chosen response"
        " does not have the higher reward now"
        for name in after
        if name.endswith("rewards/accuracy") and name in before and after[name] < 0.5 <= before[name]
    ]


def summarise(metrics: dict[str, float]) -> str:
    """The numbers people watch, in one line."""
    parts = [f"loss {metrics['loss']:.4f}" if "loss" in metrics else "skipped"]
    if "rewards/accuracy" in metrics:
        parts.append(f"accuracy {metrics['rewards/accuracy']:.3f}")
    if "rewards/margin" in metrics:
        parts.append(f"margin {metrics['rewards/margin']:+.3f}")
    if "tokens_per_second" in metrics:
        parts.append(f"{metrics['tokens_per_second']:.0f} tokens/s")
        parts.append(f"{metrics['peak_memory_bytes'] / 2**30:.2f} GiB")
    return "  ".join(parts)
