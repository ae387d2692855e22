"""Run folders, sweeps and evaluations written by hand, in the formats that the commands write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from prefopt.settings import RunSettings
from prefopt.sweeps.jobs import Job
from prefopt.sweeps.record import Sweep

PACKAGES = {"prefopt": "0.1.0", "torch": "2.6.0"}


def settings(*changes: tuple[str, Any]) -> dict[str, Any]:
    """A run's settings as plain dicts, with changes by dotted key."""
    plain = asdict(RunSettings())
    plain["loss"] = {"name": "dpo", "beta": 0.1}
    plain["data"]["train"] = [{"path": "pairs.jsonl", "weight": 1.0}]
    for key, value in changes:
        *groups, last = key.split(".")
        node = plain
        for group in groups:
            node = node[group]
        node[last] = value
    return plain


def step(number: int, loss: float, **more: float) -> dict[str, Any]:
    """A line of a training step. more: metrics, "__" in a name for "/"."""
    rest = {name.replace("__", "/"): value for name, value in more.items()}
    return {"step": number, "epoch": number / 10, "lr": 1e-3, "loss": loss, **rest, "peak_memory_bytes": 2**30 + number}


def write_run(
    folder: Path,
    *changes: tuple[str, Any],
    lines: Sequence[Mapping[str, Any]] = (),
    metrics: Mapping[str, float] | None = None,
    ended: Mapping[str, Any] | None = None,
    command: Sequence[str] = ("prefopt", "train"),
    packages: Mapping[str, str] = PACKAGES,
    report: Mapping[str, Any] | None = None,
    starts: int = 1,
) -> Path:
    """A run folder. metrics: of result.json, with which the run is done. ended: exit.json."""
    folder.mkdir(parents=True)
    plain = settings(*changes)
    (folder / "run.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    start = {
        "time": "2026-01-01T00:00:00+00:00",
        "command": list(command),
        "world": {"device": "cpu", "num_processes": 1, "num_nodes": 1, "engine": "DDP"},
        "working_directory": "/home/somebody",
        "python": "3.11.7",
        "platform": "Linux",
        "packages": dict(packages),
        "git": None,
    }
    manifest = {"settings": plain, "data_fingerprint": "f" * 64, "loss_code": {"dpo": "1"}, "starts": [start] * starts}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    if report is not None:
        (folder / "data_report.json").write_text(json.dumps(report), encoding="utf-8")
    if metrics is not None:
        result = {"state": "done", "seconds": 61.5, "metrics": dict(metrics)}
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    if ended is not None:
        (folder / "exit.json").write_text(json.dumps(ended), encoding="utf-8")
    return folder


def write_sweep(home: Path, *jobs: Job, metric: str | None = None, direction: str = "maximize") -> Path:
    """A sweep's folder in `home`, where its command was given."""
    folder = home / "sweeps" / "tried"
    folder.mkdir(parents=True)
    made = Sweep(folder, ["optim.lr=1e-3,2e-3"], None, str(home), {}, metric, direction)
    for job in jobs:
        made.jobs.append(job)
        job.log, job.note = f"sweeps/tried/job-{job.number}.log", f"sweeps/tried/job-{job.number}.json"
    made.save()
    return folder


def write_evaluation(
    folder: Path, name: str, figures: Mapping[str, float], of: Mapping[str, str] | None = None
) -> Path:
    """A folder of `prefopt eval`. of: run and model of its settings."""
    folder.mkdir(parents=True)
    plain = {key: {"value": value, "low": value - 1, "high": value + 1, "count": 10} for key, value in figures.items()}
    whole = {"name": name, "figures": plain, "tables": {}, "left_out": {"too long": 2}, "notes": ["a note"]}
    (folder / "figures.json").write_text(json.dumps(whole), encoding="utf-8")
    (folder / "settings.yaml").write_text(yaml.safe_dump(dict(of or {})), encoding="utf-8")
    return folder
