"""Likelihood against length: the points that the rows of an evaluation give, few enough to draw."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefopt.report.runs import Run

POINTS = 400
"""Of one evaluation."""
ALL_POINTS = 20_000


def scatter(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """[{run, name, chosen: [lengths, means], rejected: ...}] of the evaluations that scored responses one by one.

    Lengths in tokens, means of log-probabilities in nats per token. Rows are taken evenly from the whole file.
    """
    found: list[dict[str, Any]] = []
    for number, run in enumerate(runs):
        for evaluation in run.evaluations:
            if len(found) * POINTS >= ALL_POINTS:
                return found
            points = _points(evaluation.folder / "rows.jsonl")
            if points:
                found.append({"run": number, "name": evaluation.name, **points})
    return found


def _points(path: Path) -> dict[str, list[list[float]]]:
    """Nothing where the file is missing, or holds rows of another kind: evaluations differ in what a row is."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    rows = [line for line in lines if line]
    found: dict[str, list[list[float]]] = {"chosen": [[], []], "rejected": [[], []]}
    for line in rows[:: max(1, len(rows) * 2 // POINTS)]:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # a line cut short by a kill; the evaluation itself says what it left out
        for side, (lengths, means) in found.items():
            response = row.get(side) if isinstance(row, dict) else None
            if not isinstance(response, Mapping) or not response.get("tokens") or response.get("logps") is None:
                return {}
            mean = response["logps"] / response["tokens"]
            if math.isfinite(mean):
                lengths.append(response["tokens"])
                means.append(float(f"{mean:.5g}"))
    return found if found["chosen"][0] else {}
