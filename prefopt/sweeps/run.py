"""`prefopt train -m`: jobs planned, started, and told about in one table at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from prefopt.console import PLAIN
from prefopt.run_folder import locked, make_folder
from prefopt.sweeps.groups import Starting, record
from prefopt.sweeps.jobs import DONE, Job
from prefopt.sweeps.launcher import Launcher, make_launcher
from prefopt.sweeps.plan import Combination, expand, plan_jobs, sweep_name
from prefopt.sweeps.record import SWEEPS, Sweep, load
from prefopt.sweeps.states import exit_code, settle
from prefopt.sweeps.table import summary, table

if TYPE_CHECKING:
    from rich.console import Console


def sweep(
    words: list[str],
    config_dir: Path | None,
    starting: Starting,
    list_only: bool = False,
    single: bool = False,
    script_only: bool = False,
) -> int:
    """Run every combination; 0 all done, 1 one failed, 75 one was stopped, 128 + number after a signal.

    words: overrides of the run. list_only: print the jobs and do nothing else. single: one run, started as a sweep of
    one job, by a launcher that does not wait for it. script_only: print what would be submitted, and submit nothing.

    Raises: UserError, before anything starts, that names every job that cannot be composed or is refused by a check.
    """
    from rich.console import Console

    console = Console()
    launcher = make_launcher(starting.launcher)
    combinations = [Combination(words, [])] if single else expand(words)
    jobs, _, notes = plan_jobs(combinations, config_dir, launcher)
    for note in notes:
        print(f"prefopt: {note}", file=sys.stderr)
    if list_only:
        for job in jobs:
            console.print(f"job {job.number}: {' '.join(job.varied)} -> {job.dir}", **PLAIN)
        return 0
    folder = SWEEPS / sweep_name(jobs)
    config = None if config_dir is None else str(config_dir)
    made = Sweep(folder, words, config, os.getcwd(), record(starting), None, "maximize", jobs)
    for job in jobs:
        made.place(job)
    make_folder(folder)  # also for a script that is submitted by hand: SLURM opens the log before it runs
    if script_only:
        from prefopt.slurm.launcher import SlurmLauncher

        assert isinstance(launcher, SlurmLauncher)
        print(launcher.script([job for job in jobs if job.state != DONE]))
        return 0
    with locked(folder):
        _take_over(made)
        return run(made, launcher, console, lambda job: job.is_to_start)


def run(made: Sweep, launcher: Launcher, console: Console, chosen: Callable[[Job], bool]) -> int:
    """Start those jobs of a sweep, whose lock is held, that are chosen; then the table, and the exit code."""
    refresh(made, launcher)
    made.save()
    code = launcher.start(_queued(made, chosen), made.record)
    refresh(made, launcher)
    made.save()
    show(made, console)
    if code:
        return code
    return exit_code(made.jobs, waited=code is not None)


def refresh(made: Sweep, launcher: Launcher) -> None:
    """Bring the state of every job up to date, in memory."""
    launcher.refresh([job for job in made.jobs if job.handle])
    for job in made.jobs:
        settle(job)


def show(made: Sweep, console: Console) -> None:
    """The table."""
    console.print(table(made.jobs, made.metric))
    console.print(summary(made.jobs, made.metric, made.direction), **PLAIN)
    console.print(f"logs and sweep.json in {made.folder}", **PLAIN)


def _queued(made: Sweep, chosen: Callable[[Job], bool]) -> Iterable[Job]:
    return [job for job in made.jobs if chosen(job)]


def _take_over(made: Sweep) -> None:
    """What an earlier start of the same sweep recorded of its jobs, by their folders."""
    before = load(made.folder)
    if before is None:
        return
    known = {job.dir: job for job in before.jobs}
    for job in made.jobs:
        old = known.get(job.dir)
        if old is not None:
            for name in ("log", "note", "state", "exit_code", "error", "metrics", "had_folder", "handle"):
                setattr(job, name, getattr(old, name))
