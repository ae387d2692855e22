"""From the paths of a command line to all that a report shows: runs, jobs of sweeps, evaluations of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prefopt.errors import UserError
from prefopt.report.evaluations import named_figures, read_evaluation
from prefopt.report.places import EVALUATED, SWEEP, find_places
from prefopt.report.read_run import read_run
from prefopt.report.runs import Evaluation, Gathered, Run
from prefopt.report.sweep_jobs import load_sweep, runs_of, swept_keys
from prefopt.report.varied import varied_keys, with_labels
from prefopt.report.verdict import incomparable
from prefopt.sweeps.jobs import DONE
from prefopt.sweeps.record import Sweep

_TITLES = 3
"""Names that a title has; of more it says how many."""


def gather(paths: Sequence[Path]) -> Gathered:
    """Every run of the paths, each once, in the order of the command line; of a sweep in the order of its jobs.

    paths: run folders, sweeps' folders, folders of evaluations, and folders that hold any of these. An evaluation
    belongs to the run that it names or whose model it measured; one of another model has a row of its own.

    Raises: UserError for a path that holds no run, or where all sweeps that were named have no jobs.
    """
    runs: dict[Path, Run] = {}
    evaluations: list[Evaluation] = []
    sweeps: list[Sweep] = []
    notes: list[str] = []
    for kind, folder in find_places(paths):
        if kind == SWEEP:
            sweep = load_sweep(folder)
            sweeps.append(sweep)
            found, said = runs_of(sweep)
            if not found:
                notes.append(f"{folder} is a sweep without jobs")
        elif kind == EVALUATED:
            evaluations.append(read_evaluation(folder))
            continue
        else:
            run, said = read_run(folder)
            found = [run]
        notes += said
        for run in found:
            # A job that has no folder yet is told by its sweep's.
            runs.setdefault(run.folder.resolve() if run.folder else folder.resolve() / run.label, run)
    everything = _with_evaluations(runs, evaluations)
    if not everything:
        raise UserError(notes[0], "start it: prefopt sweep resume, or give another folder")
    keys = varied_keys([run.settings or run.varied for run in everything if run.settings or run.varied])
    labelled = with_labels(everything, keys)
    metrics = {(sweep.metric, sweep.direction) for sweep in sweeps if sweep.metric}
    metric, direction = metrics.pop() if len(metrics) == 1 else ("", "")
    of_sweeps = set().union(*map(swept_keys, sweeps))
    swept = [key for key in keys if key in of_sweeps]
    gathered = Gathered(_title(paths), labelled, keys, (), metric or "", direction, swept)
    return replace(gathered, notes=[*notes, *_counts(labelled), *incomparable(gathered)])


def _with_evaluations(runs: dict[Path, Run], evaluations: Sequence[Evaluation]) -> list[Run]:
    """The runs, with the evaluations that lie elsewhere; those that are of none of them as rows of their own."""
    others: dict[str, list[Evaluation]] = {}
    more: dict[Path, list[Evaluation]] = {}
    for evaluation in evaluations:
        measured = Path(evaluation.of).resolve() if evaluation.of else None
        owner = next((place for place in (measured, measured and measured.parent) if place in runs), None)
        if owner is not None:
            more.setdefault(owner, []).append(evaluation)
        else:
            others.setdefault(evaluation.of or str(evaluation.folder), []).append(evaluation)
    found = []
    for place, run in runs.items():
        added = more.get(place, [])
        known = [*run.evaluations, *added]
        figures = named_figures(known) if added else {}
        found.append(replace(run, evaluations=known, metrics={**run.metrics, **figures}) if added else run)
    for of, theirs in others.items():
        folder = theirs[0].folder
        found.append(Run(folder, of, "", {}, {}, DONE, metrics=named_figures(theirs), evaluations=theirs))
    return found


def _title(paths: Sequence[Path]) -> str:
    names = [path.resolve().name or str(path) for path in paths]
    more = f" and {len(names) - _TITLES} more" if len(names) > _TITLES else ""
    return ", ".join(names[:_TITLES]) + more


def _counts(runs: Sequence[Run]) -> list[str]:
    """What of the runs' numbers could not be used, and of which settings not all of them are."""
    found = []
    if broken := [run for run in runs if run.broken]:
        found.append(
            f"{sum(run.broken for run in broken)} lines of metrics.jsonl could not be read and are left out:"
            f" {_some(broken)}"
        )
    if nonfinite := [run for run in runs if run.nonfinite]:
        found.append(
            f"{sum(run.nonfinite for run in nonfinite)} values are NaN or infinite and are left out: {_some(nonfinite)}"
        )
    if often := [run for run in runs if run.seconds is not None and run.starts > 1]:
        found.append(f"the time of a run that was started several times is that of its last start: {_some(often)}")
    if changed := [run for run in runs if run.changes]:
        said = "; ".join(f"{run.called}: {', '.join(run.changes)}" for run in changed[:_TITLES])
        more = f"; and {len(changed) - _TITLES} more runs" if len(changed) > _TITLES else ""
        found.append(f"settings shown are those of the last start: {said}{more}")
    return found


def _some(runs: Sequence[Run]) -> str:
    more = f" and {len(runs) - _TITLES} more" if len(runs) > _TITLES else ""
    return ", ".join(run.called for run in runs[:_TITLES]) + more
