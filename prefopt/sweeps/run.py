"""`prefopt train -m`: jobs planned, started, and told about in one table at the end."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt.console import PLAIN
from prefopt.errors import UserError
from prefopt.lock import locked
from prefopt.memory_check import check_installed
from prefopt.run_folder import make_folder
from prefopt.sweeps.goal import check_metric, goal
from prefopt.sweeps.groups import Starting, record
from prefopt.sweeps.jobs import DONE, Job
from prefopt.sweeps.launcher import Launcher, make_launcher
from prefopt.sweeps.params import with_params
from prefopt.sweeps.plan import Combination, expand, plan_jobs, sweep_name
from prefopt.sweeps.record import SWEEPS, Sweep, load
from prefopt.sweeps.space import read_space
from prefopt.sweeps.states import SAVED, exit_code, settle
from prefopt.sweeps.table import complaints, next_step, show_jobs, summary

if TYPE_CHECKING:
    from rich.console import Console

    from prefopt.sweeps.study import Study


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
    words = words if single else with_params(words, starting.sweeper.params)
    combinations = [Combination(words, [])] if single else _combinations(words, starting)
    jobs, runs, notes = plan_jobs(combinations, config_dir, launcher)
    metric, direction = goal(starting.sweeper, runs[0])
    for note in notes:
        print(f"prefopt: {note}", file=sys.stderr)
    asks = starting.sweeper.name == "optuna"
    if list_only:
        for job in jobs:
            console.print(f"job {job.number}: {' '.join(job.varied)} -> {job.dir}", **PLAIN)
        if asks:
            console.print(f"one of the {starting.sweeper.n_trials} runs that Optuna will choose", **PLAIN)
        return 0
    folder = SWEEPS / (_study_name(words, starting.sweeper, runs[0].name) if asks else sweep_name(jobs))
    config = None if config_dir is None else str(config_dir)
    made = Sweep(folder, words, config, os.getcwd(), record(starting), metric, direction)
    make_folder(folder)  # also for a script that is submitted by hand: SLURM opens the log before it runs
    if script_only:
        from prefopt.slurm.launcher import SlurmLauncher

        assert isinstance(launcher, SlurmLauncher)
        for job in jobs:
            made.place(job)
        print(launcher.script([job for job in jobs if job.state != DONE]), end="")
        return 0
    with locked(folder):
        before = load(folder)
        known = {} if before is None else {job.dir: job for job in before.jobs}
        made.made_at = made.made_at if before is None else before.made_at
        for job in [] if asks else jobs:
            made.place(job)
            made.jobs.append(_as_recorded(job, known.get(job.dir)))
        if asks:
            made.jobs = list(known.values())
        return run(made, launcher, console, lambda job: job.is_to_start)


def run(
    made: Sweep, launcher: Launcher, console: Console, chosen: Callable[[Job], bool], is_asking: bool = True
) -> int:
    """Start those jobs of a sweep, whose lock is held, that are chosen; then the table, and the exit code.

    is_asking: where Optuna chooses, whether it goes on to jobs that are not known yet.
    75 where a job was told to stop and has not stopped yet: it cannot be started again before that.
    """
    refresh(made, launcher)
    stopping = [job.number for job in made.jobs if job.is_stopping]
    made.save()
    study = _study(made, launcher)

    def changed(job: Job) -> None:
        made.record(job)
        if study is not None:
            study.told(job)
        else:
            check_metric(job, made.metric)

    for job in made.jobs:
        changed(job)
    jobs: Iterator[Job] = (
        iter([job for job in made.jobs if chosen(job)]) if study is None else study.jobs(chosen, is_asking)
    )
    code = launcher.start(jobs, changed)
    refresh(made, launcher)
    made.save()
    show(made, console)
    for number in stopping:
        print(
            f"prefopt: job {number} is still stopping; give the same command again when it has stopped", file=sys.stderr
        )
    for line in complaints(made.jobs):  # --quiet drops the table, and not these
        print(f"prefopt: {line}", file=sys.stderr)
    if code:
        return code
    return exit_code(made.jobs, waited=code is not None) or (SAVED if stopping else 0)


def refresh(made: Sweep, launcher: Launcher) -> None:
    """Bring the state of every job up to date, in memory."""
    launcher.refresh([job for job in made.jobs if job.handle])
    for job in made.jobs:
        settle(job)


def show(made: Sweep, console: Console) -> None:
    """The table, where more is found, and what can be done about what is not done."""
    show_jobs(console, made.jobs, made.metric)
    console.print(summary(made.jobs, made.metric, made.direction), **PLAIN)
    console.print(f"logs (job-N.log) and sweep.json in {made.folder}", **PLAIN)
    if said := next_step(made.jobs, made.folder):
        console.print(said, **PLAIN)


def _combinations(words: list[str], starting: Starting) -> list[Combination]:
    """The runs of a sweep; of one that Optuna chooses, a run for its words to be checked with."""
    sweeper = starting.sweeper
    if sweeper.name == "grid":
        return expand(words)
    if sweeper.n_trials < 1:
        raise UserError(f"hydra.sweeper.n_trials={sweeper.n_trials}: must be 1 or more")
    if sweeper.name == "random":
        return read_space(words).draw(sweeper.n_trials, sweeper.seed)
    if not starting.launcher.waits:
        raise UserError(
            f"hydra/sweeper=optuna decides on a run by those before it, and hydra/launcher={starting.launcher.name}"
            " does not wait for them",
            "hydra/sweeper=random, or hydra/launcher=local_gpus inside one job of the cluster",
        )
    check_installed("optuna", "hydra/sweeper=optuna")
    return read_space(words).draw(1, sweeper.seed)


def _study_name(words: list[str], sweeper: Any, name: str) -> str:
    """As `sweep_name`: of what is asked for, but not for how long; the words have the `params` already."""
    deciding = {key: value for key, value in asdict(sweeper).items() if key not in ("n_trials", "params")}
    text = json.dumps([sorted(words), deciding], sort_keys=True)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _study(made: Sweep, launcher: Launcher) -> Study | None:
    stated = made.starting["hydra/sweeper"]
    if stated["name"] != "optuna":
        return None
    from prefopt.sweeps.settings import OptunaSettings
    from prefopt.sweeps.study import Study

    return Study(made, OptunaSettings(**stated), launcher)


def _as_recorded(job: Job, before: Job | None) -> Job:
    """A planned job with what an earlier start of the same sweep recorded of it."""
    if before is not None:
        for name in ("log", "note", "state", "exit_code", "error", "metrics", "had_folder", "handle"):
            setattr(job, name, getattr(before, name))
    return job
