"""The table of a sweep's jobs: none is left out, whatever became of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefopt.sweeps.jobs import DONE, FAILED, LOST, STATES, Job

HEADLINES = ("loss", "rewards/accuracy", "rewards/margin")
"""Metrics of the last evaluation that the table shows where none is named, of the first evaluation set."""

WIDTH_OF_A_VALUE = 24
"""Columns that a narrow terminal leaves to what varies."""


def table(jobs: Sequence[Job], metric: str | None) -> Any:
    """All jobs, one row each. metric: the one by which they are compared."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    found = [shown_metrics(job.metrics, metric) for job in jobs]
    shown = [metric] if metric else [name for name in HEADLINES if any(name in numbers for numbers in found)]
    longest = max((len(word) for job in jobs for word in job.varied), default=0)
    made = Table("job", header_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    made.add_column("what varies", min_width=min(longest, WIDTH_OF_A_VALUE))
    for heading in ("state", "exit", *(name.rpartition("/")[2] for name in shown)):
        made.add_column(heading, no_wrap=True)
    if any(job.error for job in jobs):
        made.add_column("error")
    made.add_column("log", no_wrap=True)
    for job, numbers in zip(jobs, found):
        code = "" if job.exit_code is None else str(job.exit_code)
        values = [f"{numbers[name]:.4g}" if name in numbers else "" for name in shown]
        cells = [str(job.number), " ".join(job.varied), job.state, code, *values]
        cells += [job.error] if any(job.error for job in jobs) else []
        cells.append(Path(job.log).name)
        made.add_row(*(Text(cell, overflow="fold") for cell in cells))
    return made


def complaints(jobs: Sequence[Job]) -> list[str]:
    """A line for each job that failed or is lost: what varies, why, and its log; they are for stderr."""
    return [
        f"job {job.number}{f' ({varied})' if (varied := ' '.join(job.varied)) else ''} {job.state}:"
        f" {job.error or 'it left no word'}; {job.log}"
        for job in jobs
        if job.state in (FAILED, LOST)
    ]


def summary(jobs: Sequence[Job], metric: str | None, direction: str) -> str:
    """How many jobs are in which state, and the best one where a metric is named."""
    counts = [(sum(job.state == state for job in jobs), state) for state in STATES]
    said = ", ".join(f"{count} {state}" for count, state in counts if count)
    best = best_job(jobs, metric, direction)
    if best is None or metric is None:
        return said
    least = "least" if direction == "minimize" else "most"
    return f"{said}; {least} {metric}: {best.metrics[metric]:.6g}, job {best.number} ({' '.join(best.varied)})"


def best_job(jobs: Sequence[Job], metric: str | None, direction: str) -> Job | None:
    """The done job with the best value of a metric; None where none has it."""
    having = [job for job in jobs if job.state == DONE and metric in job.metrics]
    if metric is None or not having:
        return None
    sign = -1.0 if direction == "minimize" else 1.0
    return max(having, key=lambda job: sign * job.metrics[metric])


def shown_metrics(metrics: dict[str, float], metric: str | None) -> dict[str, float]:
    """The named metric, else `HEADLINES` of the first evaluation set, from names like eval/heldout/rewards/accuracy."""
    if metric is not None:
        return {metric: metrics[metric]} if metric in metrics else {}
    sets = list(dict.fromkeys(name.split("/")[1] for name in metrics if name.count("/") > 1))
    if not sets:
        return {}
    return {name: metrics[key] for name in HEADLINES if (key := f"eval/{sets[0]}/{name}") in metrics}
