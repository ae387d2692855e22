"""Folders of `prefopt eval`, read back, and the names that their figures have in a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefopt.errors import UserError
from prefopt.evaluate.measure import Figure
from prefopt.report.runs import Evaluation
from prefopt.run_folder import read_json

FIGURES = "figures.json"
"""The file that an evaluation is done with."""

INSIDE = "eval"
"""The folder of a run in which its evaluations lie."""


def evaluations_of(folder: Path) -> tuple[list[Evaluation], list[str]]:
    """The evaluations that lie in a run's folder, by name of their folder; and a sentence for each that is unreadable.

    One that is not done, and so has no figures yet, is neither.
    """
    found, notes = [], []
    for file in sorted((folder / INSIDE).glob(f"*/{FIGURES}")):
        try:
            found.append(read_evaluation(file.parent))
        except UserError as error:
            notes.append(error.message)
    return found, notes


def read_evaluation(folder: Path) -> Evaluation:
    """The evaluation of a folder.

    Raises: UserError where figures.json or settings.yaml cannot be read or hold something else.
    """
    file = folder / FIGURES
    plain = read_json(file, "out")
    if plain is None:
        raise UserError(f"{folder} has no {FIGURES}", "give the folder of an evaluation that is done")
    try:
        figures = {name: _figure(value) for name, value in plain["figures"].items()}
        tables = {name: [dict(row) for row in rows] for name, rows in plain.get("tables", {}).items()}
        left_out = {reason: int(count) for reason, count in plain.get("left_out", {}).items()}
        notes = tuple(str(note) for note in plain.get("notes", ()))
        name = str(plain["name"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(
            f"{file} does not hold what `prefopt eval` writes", "delete the folder and evaluate once more"
        ) from None
    return Evaluation(name, folder, figures, tables, notes, left_out, _measured(folder))


def named_figures(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """The value of every finite figure as EVALUATION/figure; two evaluations of one name go by their folders."""
    names = [evaluation.name for evaluation in evaluations]
    found = {}
    for evaluation in evaluations:
        first = evaluation.name if names.count(evaluation.name) == 1 else evaluation.folder.name
        for name, figure in evaluation.figures.items():
            if math.isfinite(figure.value):
                found[f"{first}/{name}"] = figure.value
    return found


def _figure(value: Mapping[str, Any]) -> Figure:
    low, high = (None if value.get(key) is None else float(value[key]) for key in ("low", "high"))
    return Figure(float(value["value"]), low, high, int(value.get("count", 0)))


def _measured(folder: Path) -> str:
    """The run or the model that an evaluation's settings name; "" where it has no settings."""
    import yaml

    try:
        settings = yaml.safe_load((folder / "settings.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, yaml.YAMLError):
        raise UserError(
            f"{folder / 'settings.yaml'} cannot be read", "delete the folder and evaluate once more"
        ) from None
    return str(settings.get("run") or settings.get("model") or "") if isinstance(settings, dict) else ""
