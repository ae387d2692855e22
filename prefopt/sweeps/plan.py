"""The words of a command line to jobs: each composed and checked before anything starts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from prefopt.checks import check
from prefopt.config import compose_with_origins, identity
from prefopt.errors import UserError
from prefopt.overrides import parse
from prefopt.run_folder import find_state
from prefopt.settings import RunSettings
from prefopt.sweeps.jobs import Job
from prefopt.sweeps.launcher import Launcher
from prefopt.sweeps.states import settle


@dataclass(frozen=True)
class Combination:
    """One run's overrides, and those of them that vary."""

    overrides: list[str]
    varied: list[str]


def expand(words: list[str]) -> list[Combination]:
    """Every combination, in the order of the command line.

    Raises: UserError where nothing varies, or by an interval or a glob.
    """
    choices: list[list[str]] = []
    varies: list[bool] = []
    for text in words:
        override = parse(text)
        is_sweep = override.is_sweep_override()
        if is_sweep and (not override.is_discrete_sweep() or "glob(" in text):
            raise UserError(
                f"{text}: a grid is over listed values and range()",
                "key=value,value,...; or draw from it by hydra/sweeper=random or hydra/sweeper=optuna",
            )
        values = [f"{override.get_key_element()}={v}" for v in override.sweep_string_iterator()] if is_sweep else [text]
        choices.append(values)
        varies.append(is_sweep)
    if not any(varies):
        raise UserError("-m: no key has several values", "for instance loss.beta=2,2.5,10; or leave -m out")
    return [Combination(list(job), [text for text, varied in zip(job, varies) if varied]) for job in product(*choices)]


def make_job(
    number: int, combination: Combination, config_dir: Path | None, launcher: Launcher
) -> tuple[Job, RunSettings, tuple[str, ...]]:
    """A job that has been composed and checked, its run, and the notes to print.

    Raises: UserError where it cannot be composed, or is refused by a check, its launcher or what is in its folder.
    """
    composition = compose_with_origins(combination.overrides, config_dir)
    run = composition.run
    check(run)
    launcher.check(run)
    find_state(Path(run.dir), run, None)
    job = Job(number, combination.overrides, combination.varied, identity(run), run.dir)
    settle(job)
    return job, run, composition.notes


def plan_jobs(
    combinations: list[Combination], config_dir: Path | None, launcher: Launcher
) -> tuple[list[Job], list[RunSettings], list[str]]:
    """The jobs, each composed and checked, their runs, and the notes to print.

    Raises: UserError that names every bad job, and two jobs that would be the same run or share a folder.
    """
    jobs: list[Job] = []
    runs: list[RunSettings] = []
    bad: list[str] = []
    notes: dict[str, None] = {}
    for number, combination in enumerate(combinations, start=1):
        words = " ".join(combination.varied)
        try:
            job, run, said = make_job(number, combination, config_dir, launcher)
        except UserError as error:
            bad.append(f"job {number} ({words}): {error}" if words else str(error))
            continue
        notes.update(dict.fromkeys(said))
        same = next((other for other in jobs if other.dir == job.dir), None)
        if same is not None:
            bad.append(f"job {number} ({words}): has the folder of job {same.number}, {job.dir}")
        jobs.append(job)
        runs.append(run)
    if bad:
        raise UserError("nothing was started:\n  " + "\n  ".join(bad))
    return jobs, runs, list(notes)


def sweep_name(jobs: list[Job]) -> str:
    """Name of the first run and a hash of all jobs: the same command finds the same folder."""
    text = json.dumps(sorted(job.dir for job in jobs))
    first = Path(jobs[0].dir).name.removesuffix(f"-{jobs[0].identity}")
    return f"{first}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
