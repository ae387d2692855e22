"""The table of a sweep's jobs: none is left out, whatever became of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefopt.console import PLAIN, print_table
from prefopt.sweeps.jobs import DONE, FAILED, LOST, QUEUED, STATES, Job

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

HEADLINES = ("loss", "rewards/accuracy", "rewards/margin")
"""Metrics of the last evaluation that the table shows where none is named, of the first evaluation set."""

WIDTH_OF_A_VALUE = 24
"""Columns that a narrow terminal leaves to what varies."""


def show_jobs(console: Console, jobs: Sequence[Job], metric: str | None) -> None:
    """The table; where it has no room for errors and logs, a line below it for each job that has an error."""
    from rich.measure import Measurement

    wide = console.options.update(max_width=10_000)
    whole = table(jobs, metric)
    if Measurement.get(console, wide, whole).maximum <= console.width:
        console.print(whole)
        return
    with_ids, without = table(jobs, metric, is_narrow=True), table(jobs, metric, is_narrow=True, has_ids=False)
    has_room = Measurement.get(console, wide, with_ids).minimum <= console.width
    print_table(console, with_ids if has_room else without)
    for job in jobs:
        if job.error:
            console.print(f"job {job.number}: {job.error} (log: {job.log})", **PLAIN)


def table(jobs: Sequence[Job], metric: str | None, is_narrow: bool = False, has_ids: bool = True) -> Table:
    """All jobs, one row each. metric: the one by which they are compared.

    is_narrow: without errors and logs. has_ids: with the numbers that a cluster's queue gave the jobs, if it did.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    found = [shown_metrics(job.metrics, metric) for job in jobs]
    shown = [metric] if metric else [name for name in HEADLINES if any(name in numbers for numbers in found)]
    longest = max((len(word) for job in jobs for word in job.varied), default=0)
    has_ids = has_ids and any(job.queue_id for job in jobs)
    has_errors = not is_narrow and any(job.error for job in jobs)
    made = Table("job", header_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    made.add_column("what varies", min_width=min(longest, WIDTH_OF_A_VALUE))
    ids = ["queue id"] if has_ids else []
    for heading in (*ids, "state", "exit", *(name.rpartition("/")[2] for name in shown)):
        made.add_column(heading, no_wrap=True)
    if has_errors:
        made.add_column("error")
    if not is_narrow:
        made.add_column("log", no_wrap=True)
    for job, numbers in zip(jobs, found):
        code = "" if job.exit_code is None else str(job.exit_code)
        values = [f"{numbers[name]:.4g}" if name in numbers else "" for name in shown]
        cells = [str(job.number), " ".join(job.varied), *([job.queue_id] if has_ids else []), job.state, code, *values]
        cells += [job.error] if has_errors else []
        cells += [] if is_narrow else [_log(job)]
        made.add_row(*(Text(cell, overflow="fold") for cell in cells))
    return made


def _log(job: Job) -> str:
    """The name of a job's log; of one that no start of this sweep has written, why there is none."""
    if job.handle or job.state not in (DONE, QUEUED):
        return Path(job.log).name
    return "done before" if job.state == DONE else ""


def next_step(jobs: Sequence[Job], folder: Path) -> str:
    """What starts the jobs that are not done; empty where all are, or some still run or wait in a queue."""
    left = [job for job in jobs if job.is_to_start]
    failed = [job for job in left if job.state == FAILED]
    if not left or any(job.is_live for job in jobs):
        return ""
    if not failed:
        return f"next: prefopt sweep resume {folder}"
    others = "" if failed == left else f"; prefopt sweep resume {folder} starts the others too"
    return (
        f"next: prefopt sweep retry --failed {folder}{others}\n"
        "  or, where a setting was wrong: mend it and give the same prefopt train -m again; done runs stay done"
    )


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
