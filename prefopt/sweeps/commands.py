"""`prefopt sweep`: how a sweep stands, and what is done about it, from any shell."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefopt.console import PLAIN
from prefopt.errors import UserError
from prefopt.lock import holder, is_alive, locked
from prefopt.run_folder import LOCK, read_json
from prefopt.sweeps.groups import Starting, record, split
from prefopt.sweeps.jobs import FAILED, Job
from prefopt.sweeps.launcher import Launcher, make_launcher
from prefopt.sweeps.plan import Combination, make_job
from prefopt.sweeps.record import Sweep, find
from prefopt.sweeps.run import refresh, run, show
from prefopt.sweeps.states import exit_code


def status(folder: Path | None, as_json: bool) -> int:
    """Print the table, or sweep.json as it is now; the exit code that the sweep would have if it ended like this."""
    from rich.console import Console

    made = find(folder)
    refresh(made, _launcher(made))
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
        show(made, Console())
    return code


def resume(folder: Path | None, words: list[str], failed_only: bool = False) -> int:
    """Start what is not done, or only what failed; exit code as of `prefopt train -m`.

    words: hydra/launcher=NAME and its keys, where the rest is to be started in another way.

    Raises: UserError where somebody works on the sweep already, or a job would be another run now.
    """
    from rich.console import Console

    found = find(folder)
    with locked(found.folder):
        made = find(found.folder)  # as it is now that nobody else changes it
        starting = _starting(made, words)
        refresh(made, _launcher(made))
        _check_nothing_runs_elsewhere(made, starting)
        made.starting = record(starting)
        launcher = make_launcher(starting.launcher)
        chosen = [job for job in made.jobs if job.is_to_start and (job.state == FAILED or not failed_only)]
        _check(made, chosen, launcher)
        numbers = {job.number for job in chosen}
        return run(made, launcher, Console(), lambda job: job.number in numbers, is_asking=not failed_only)


def cancel(folder: Path | None) -> int:
    """Stop the queued and running jobs; those that run save first. 0 once that is on its way."""
    from rich.console import Console

    console = Console()
    made = find(folder)
    if holder(made.folder):
        _stop_holder(made.folder, console)
        return 0
    with locked(made.folder):
        launcher = _launcher(made)
        refresh(made, launcher)
        live = [job for job in made.jobs if job.is_live]
        launcher.cancel(live)
        made.save()
    numbers = ", ".join(str(job.number) for job in live)
    console.print(f"stopped: job {numbers}" if live else "nothing is queued or runs", **PLAIN)
    return 0


def _stop_holder(folder: Path, console: Any) -> None:
    """Signal the command that runs a sweep here, and wait until it has ended."""
    held = read_json(folder / LOCK) or {}
    owner = {"host": held.get("host"), **held["owners"][0]}
    if owner["host"] != os.uname().nodename:
        raise UserError(f"{folder} is run by {holder(folder)}", "give this command there")
    os.kill(owner["pid"], signal.SIGTERM)
    console.print(f"process {owner['pid']} stops its jobs, which save", **PLAIN)
    while is_alive(owner):
        time.sleep(0.2)


def _launcher(made: Sweep) -> Launcher:
    return make_launcher(_starting(made, []).launcher)


def _starting(made: Sweep, words: list[str]) -> Starting:
    config_dir = None if made.config_dir is None else Path(made.config_dir)
    rest, starting = split(words, config_dir, made.starting)
    if rest:
        raise UserError(
            f"{rest[0]}: the runs of a sweep are what they are, only hydra/launcher=NAME may differ",
            "another value is another sweep: `prefopt train -m` with it; runs of it that are done are not made again",
        )
    if "hydra/sweeper" in starting.given:
        raise UserError("hydra/sweeper: what a sweep chooses from is what it is", "give its command with other values")
    return starting


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
        raise UserError("nothing was started:\n  " + "\n  ".join(bad))
