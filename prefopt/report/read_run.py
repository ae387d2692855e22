"""One run's folder as a report needs it, whatever state it was left in: what is damaged is said, not raised."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefopt.errors import UserError
from prefopt.lock import holder
from prefopt.report.curves import SAMPLES, Metrics, read_metrics
from prefopt.report.evaluations import evaluations_of, named_figures
from prefopt.report.runs import Run
from prefopt.run_folder import EXIT, MANIFEST, RESULT, RUN, read_json
from prefopt.sweeps.jobs import DONE, FAILED, LOST, PREEMPTED, RUNNING
from prefopt.sweeps.states import SAVED, STOPPED


@dataclass
class Told:
    """State and error of a run, and what could not be read of it."""

    state: str = LOST
    error: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)


def read_run(folder: Path) -> tuple[Run, list[str]]:
    """The run of a folder that has a run.yaml, its label and what it varies still empty; and what could not be read."""
    told = _state(folder)
    manifest = _read(folder / MANIFEST, told)
    settings = _settings(folder, manifest, told)
    try:
        metrics = read_metrics(folder / "metrics.jsonl", is_growing=told.state == RUNNING)
    except OSError as error:
        told.complaints.append(f"{folder / 'metrics.jsonl'} cannot be read: {error.strerror}")
        metrics = Metrics()
    evaluations, complaints = evaluations_of(folder)
    told.complaints += complaints
    answers = {name: curve.values[-1] for name, curve in metrics.curves.items() if name.startswith(SAMPLES)}
    last = _numbers(told.result.get("metrics")) or metrics.evaluation
    if told.state != DONE:  # what was measured before the first step is no result of the training
        answers, last = (
            {name: number for name, number in found.items() if metrics.curves[name][-1][0] > 0}
            for found in (answers, last)
        )
    run = Run(
        folder=folder,
        label="",
        method=str(settings.get("loss.name", "")),
        varied={},
        settings=settings,
        state=told.state,
        error=told.error,
        metrics={**last, **answers, **named_figures(evaluations)},
        curves=metrics.curves,
        nonfinite=metrics.nonfinite,
        broken=metrics.broken,
        seconds=_numbers(told.result).get("seconds"),
        starts=len(manifest.get("starts", ())) if manifest else 0,
        peak_memory_bytes=metrics.peak_memory_bytes,
        samples=_samples(folder, told),
        data_report=_read(folder / "data_report.json", told),
        manifest=manifest,
        evaluations=evaluations,
    )
    return run, told.complaints


def one_line(text: str) -> str:
    """The first line of a message: what follows are hints."""
    return " ".join(text.strip().splitlines()[:1])


def _state(folder: Path) -> Told:
    """As `sweeps.states.settle` tells it of a job, for a run that nobody has a job of."""
    try:
        result = read_json(folder / RESULT)
        if result is not None:
            return Told(DONE, result=result)
        if holder(folder):
            return Told(RUNNING)
        said = read_json(folder / EXIT)
    except UserError as error:
        return Told(FAILED, one_line(error.message))
    except OSError as error:  # the lock of another machine is looked at by writing beside it
        return Told(LOST, f"whether it still runs cannot be told: {error.strerror}")
    if said is None:
        return Told(LOST, "it ended without a word; the same command goes on with it")
    code = said.get("exit_code")
    return Told(PREEMPTED if code == SAVED or code in STOPPED else FAILED, one_line(str(said.get("message", ""))))


def _read(file: Path, told: Told) -> dict[str, Any] | None:
    try:
        return read_json(file)
    except UserError as error:
        told.complaints.append(one_line(error.message))
        return None


def _settings(folder: Path, manifest: Mapping[str, Any] | None, told: Told) -> dict[str, Any]:
    """The composed settings, which the manifest has; where it has not, those of run.yaml, with paths of this machine.

    A list of scalars is one value, a list of mappings is entered by place.
    """
    plain = (manifest or {}).get("settings")
    if not isinstance(plain, dict):
        plain = _run_yaml(folder / RUN, told)
    return dict(_leaves(plain))


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    items: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(value, Mapping):
        items = iter(value.items())
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = iter(enumerate(value))
    elif where:
        yield where, value
    for key, item in items:
        yield from _leaves(item, f"{where}.{key}" if where else str(key))


def _run_yaml(file: Path, told: Told) -> dict[str, Any]:
    import yaml

    try:
        plain = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        told.complaints.append(f"{file} cannot be read: {one_line(str(error))}")
        return {}
    if not isinstance(plain, dict):
        told.complaints.append(f"{file} does not hold settings")
        return {}
    return plain


def _numbers(found: Any) -> dict[str, float]:
    """The finite numbers of an object by name; an evaluation that is not finite ends a run before it gets here."""
    if not isinstance(found, Mapping):
        return {}
    return {
        str(name): float(value)
        for name, value in found.items()
        if type(value) in (int, float) and abs(value) < float("inf")
    }


def _samples(folder: Path, told: Told) -> list[Mapping[str, Any]]:
    file = folder / "samples.jsonl"
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        told.complaints.append(f"{file} cannot be read: {one_line(str(error))}")
        return []
    rows: list[Mapping[str, Any]] = []
    broken = 0
    for line in lines:
        if not line:
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            broken += 1
    if broken:
        told.complaints.append(f"{file}: {broken} lines cannot be read")
    return rows
