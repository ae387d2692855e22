"""The jobs of a sweep as runs of a report, those that have no folder yet included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefopt.errors import UserError
from prefopt.report.read_run import one_line, read_run
from prefopt.report.runs import Run
from prefopt.report.varied import METHOD
from prefopt.run_folder import RUN
from prefopt.sweeps.jobs import Job
from prefopt.sweeps.record import RECORD, Sweep, load
from prefopt.sweeps.states import read_note, settle


def load_sweep(folder: Path) -> Sweep:
    """The sweep of a folder that has a sweep.json, its paths made absolute.

    They are relative to where the sweep was started. Where that place is gone, since the whole was copied, the sweep's
    folder is taken to lie where sweeps do: in `sweeps/` of the new place.

    Raises: UserError where sweep.json cannot be read or is not of this version.
    """
    made = load(folder)
    assert made is not None, "the caller has seen its sweep.json"
    home = Path(made.working_directory)
    if not home.is_dir() or home.resolve() not in folder.resolve().parents:
        home = folder.resolve().parent.parent
    for job in made.jobs:
        job.dir = str(home / job.dir) if job.dir else ""
        job.log, job.note = str(home / job.log), str(home / job.note)
    return made


def runs_of(made: Sweep) -> tuple[list[Run], list[str]]:
    """Every job of a sweep, and what could not be read. Asks no cluster: `prefopt sweep status` does."""
    runs, complaints = [], []
    for job in made.jobs:
        try:
            if "pid" in job.handle:  # of a process on this machine, which can be looked at
                read_note(job)
            settle(job)
        except (UserError, OSError) as error:
            complaints.append(f"{made.folder / RECORD}: job {job.number}: {one_line(str(error))}")
        run, said = _run_of(job)
        runs.append(run)
        complaints += said
    shared = _agreed([run.settings for run in runs if run.settings])
    return [run if run.settings else _completed(run, shared) for run in runs], complaints


def swept_keys(made: Sweep) -> set[str]:
    """The keys in which the jobs of a sweep were to differ."""
    return {_setting(word)[0] for job in made.jobs for word in job.varied}


def _agreed(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all runs of a sweep that have a folder have alike."""
    if not settings:
        return {}
    first, *others = settings
    return {key: of for key, of in first.items() if all(key in other and other[key] == of for other in others)}


def _completed(run: Run, shared: Mapping[str, Any]) -> Run:
    """A job without a folder, with the settings that its sweep's runs share and its own words over them."""
    if not shared:
        return run
    has_method = METHOD in run.varied
    settings = {key: of for key, of in shared.items() if not (has_method and key.startswith("loss."))}
    settings |= run.varied
    return replace(run, settings=settings, method=str(settings.get(METHOD, "")))


def _run_of(job: Job) -> tuple[Run, list[str]]:
    folder = Path(job.dir) if job.dir else None
    if folder is not None and (folder / RUN).is_file():
        run, complaints = read_run(folder)
        # What started the job knows more than the folder: a job that waits to be started again has an exit.json.
        return replace(run, state=job.state, error=job.error), complaints
    varied = dict(_setting(word) for word in job.varied)
    method = str(varied.get(METHOD, ""))
    label = f"job {job.number}"
    return Run(None, label, method, varied, {}, job.state, job.error, metrics=dict(job.metrics)), []


def _setting(word: str) -> tuple[str, Any]:
    """Key and value of an override as sweep.json has it; a group's choice is what the group calls its own name."""
    key, _, text = word.lstrip("+").partition("=")
    return (METHOD if key == "loss" else key), _value(text)


def _value(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "null": None}.get(text, text)
