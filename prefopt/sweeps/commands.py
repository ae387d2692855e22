"""`prefopt sweep`: how a sweep stands, and what is done about it, from any shell."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefopt.errors import UserError
from prefopt.lock import locked
from prefopt.sweeps.groups import Starting, record
from prefopt.sweeps.jobs import FAILED, Job
from prefopt.sweeps.launcher import Launcher, make_launcher
from prefopt.sweeps.plan import Combination, make_job
from prefopt.sweeps.record import Sweep, find
from prefopt.sweeps.run import refresh, run, show
from prefopt.sweeps.states import exit_code
from prefopt.sweeps.taken import launcher_of, numbered, starting_of, take


def status(folder: Path | None, as_json: bool) -> int:
    """Print the table, or sweep.json as it is now; the exit code that the sweep would have if it ended like this."""
    from rich.console import Console

    console = Console()
    made = take(folder, None if as_json else console)
    refresh(made, launcher_of(made))
    try:
        with locked(made.folder):
            made.save()
    except UserError:
        pass  # whoever runs the sweep keeps sweep.json true
    code = exit_code(made.jobs, waited=False)
    if as_json:
        shown: dict[str, Any] = {**asdict(made), "folder": str(made.folder), "exit_code": code}
        print(json.dumps(shown, indent=1, ensure_ascii=False))
    else:
        show(made, console)
    return code


def resume(folder: Path | None, words: list[str], failed_only: bool = False, numbers: Collection[int] = ()) -> int:
    """Start what is not done, or only what failed, or only some jobs; exit code as of `prefopt train -m`.

    words: hydra/launcher=NAME and its keys, where the rest is to be started in another way. numbers: of the jobs; empty
    for all.

    Raises: UserError where somebody works on the sweep already, a job would be another run now, or there is none of a
        number, or nothing of it to start.
    """
    from rich.console import Console

    console = Console()
    found = take(folder, console)
    with locked(found.folder):
        made = find(found.folder)  # as it is now that nobody else changes it
        starting = starting_of(made, words)
        refresh(made, launcher_of(made))
        _check_nothing_runs_elsewhere(made, starting)
        made.starting = record(starting)
        launcher = make_launcher(starting.launcher)
        if numbers:
            chosen = numbered(made, numbers, lambda job: job.is_to_start, "start")
        else:
            chosen = [job for job in made.jobs if job.is_to_start and (job.state == FAILED or not failed_only)]
        _check(made, chosen, launcher)
        starts = {job.number for job in chosen}
        is_asking = not failed_only and not numbers
        return run(made, launcher, console, lambda job: job.number in starts, is_asking)


def _check_nothing_runs_elsewhere(made: Sweep, starting: Starting) -> None:
    """Raises: UserError where another launcher is chosen while jobs of the one before are queued or run."""
    before = made.starting["hydra/launcher"]["name"]
    live = [str(job.number) for job in made.jobs if job.is_live]
    if live and starting.launcher.name != before:
        raise UserError(
            f"hydra/launcher={starting.launcher.name}: job {', '.join(live)} is queued or runs by {before}",
            f"wait for it, or prefopt sweep cancel {made.folder}",
        )


def _check(made: Sweep, jobs: list[Job], launcher: Launcher) -> None:
    """Refuse to go on where a job would be refused, or be another run, than when the sweep was planned.

    Raises: UserError that names every such job.
    """
    config_dir = None if made.config_dir is None else Path(made.config_dir)
    bad = []
    for job in jobs:
        try:
            now, _, _ = make_job(job.number, Combination(job.overrides, job.varied), config_dir, launcher)
        except UserError as error:
            bad.append(f"job {job.number} ({' '.join(job.varied)}): {error}")
            continue
        if now.identity != job.identity:
            bad.append(f"job {job.number} ({' '.join(job.varied)}): would be another run: a recipe file has changed")
    if bad:
        hint = "as they are now, they are started by the same prefopt train -m; done runs that are unchanged stay done"
        raise UserError("nothing was started:\n  " + "\n  ".join(bad), hint)
