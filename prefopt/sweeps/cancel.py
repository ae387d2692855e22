"""`prefopt sweep cancel`: a sweep's jobs, or some of them, told to stop; those that run save first."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from prefopt.console import PLAIN
from prefopt.errors import UserError
from prefopt.lock import holder, is_alive, locked
from prefopt.run_folder import LOCK, read_json
from prefopt.sweeps.jobs import CANCELLED, RUNNING, Job
from prefopt.sweeps.record import Sweep, find, here, load
from prefopt.sweeps.run import refresh
from prefopt.sweeps.states import settle
from prefopt.sweeps.taken import launcher_of, numbered, take


def cancel(folder: Path | None, numbers: Collection[int] = ()) -> int:
    """Stop the queued and running jobs; those that run save first. 0 once that is on its way.

    folder: None for the newest sweep. numbers: of the jobs; empty for all.

    Raises: UserError where a job is not there, or has nothing to stop; where nothing of the newest sweep can be
        stopped, and something of an older one can.
    """
    from rich.console import Console

    console = Console()
    others = [] if folder is not None else [other.resolve() for other in reversed(here()[:-1])]
    made = take(folder, console)
    if holder(made.folder):
        refresh(made, launcher_of(made))
        if numbers:
            _stop_processes(made, numbered(made, numbers, lambda job: job.is_live, "stop"), console)
        else:
            _stop_holder(made, console)
        return 0
    with locked(made.folder):
        launcher = launcher_of(made)
        refresh(made, launcher)
        if not any(job.is_live for job in made.jobs):
            _check_older_ones(made, others)
        live = (
            numbered(made, numbers, lambda job: job.is_live, "stop")
            if numbers
            else [job for job in made.jobs if job.is_live]
        )
        running = [job for job in live if job.state == RUNNING]
        launcher.cancel(live)
        made.save()
    console.print(f"stopped: {named(live)}" if live else "nothing is queued or runs", **PLAIN)
    if running:
        console.print(f"{named(running)} saves first; prefopt sweep status says when that is done", **PLAIN)
    return 0


def named(jobs: Sequence[Job]) -> str:
    """ "job 1, 2"."""
    return "job " + ", ".join(str(job.number) for job in jobs)


def _check_older_ones(made: Sweep, others: Sequence[Path]) -> None:
    """Raises: UserError where a sweep other than the newest, which has nothing to stop, has jobs that go on."""
    for folder in others:
        with chdir(os.getcwd()):
            try:
                recorded = load(folder)
                if recorded is None or not (holder(folder) or any(job.is_live for job in recorded.jobs)):
                    continue
                other = find(folder)
                refresh(other, launcher_of(other))
            except UserError:  # a damaged record of another sweep: it is named where somebody asks for that sweep
                continue
            live = [job for job in other.jobs if job.is_live]
        if live:
            raise UserError(
                f"{made.folder}, the newest sweep, has nothing that is queued or runs, but {other.folder} has:"
                f" {named(live)}",
                f"prefopt sweep cancel {other.folder}",
            )


def _stop_holder(made: Sweep, console: Any) -> None:
    """Signal the command that runs a sweep here, wait until it has ended, and note why its jobs stopped."""
    owner = _owner(made.folder)
    live = {job.number for job in made.jobs if job.is_live}
    os.kill(owner["pid"], signal.SIGTERM)
    console.print(f"process {owner['pid']} stops its jobs, which save", **PLAIN)
    while is_alive(owner):
        time.sleep(0.2)
    with locked(made.folder):
        ended = find(made.folder)
        for job in ended.jobs:
            if job.number in live:
                job.handle[CANCELLED] = True
                settle(job)
        ended.save()


def _stop_processes(made: Sweep, jobs: Sequence[Job], console: Any) -> None:
    """Signal the processes of jobs of this machine; the command that runs the sweep goes on with the others."""
    _owner(made.folder)
    for job in jobs:
        if is_alive(job.handle):
            os.kill(job.handle["pid"], signal.SIGTERM)
    console.print(f"stopped: {named(jobs)}, which saves first; the sweep goes on with the others", **PLAIN)


def _owner(folder: Path) -> dict[str, Any]:
    """The process that runs a sweep. Raises: UserError where that is on another machine."""
    held = read_json(folder / LOCK) or {}
    owner = {"host": held.get("host"), **held["owners"][0]}
    if owner["host"] != os.uname().nodename:
        raise UserError(f"{folder} is run by {holder(folder)}", "give this command there")
    return owner
