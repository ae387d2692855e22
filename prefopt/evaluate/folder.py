"""The folder of a `prefopt eval`: what is found is there whole, and figures.json, written last, says that it is done.

settings.yaml    the settings, all of them
manifest.json    what decides the figures: settings, sha256 of models and files; the start
rows.jsonl       one line per row measured
figures.json     {"name", "figures": {name: {value, low, high, count}}, "tables", "left_out", "notes"}
notes/, scores/ and the like: what a measure keeps for a resume

Standard library only.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefopt.disk import write_whole
from prefopt.errors import RunError
from prefopt.evaluate.measure import Measured
from prefopt.run_folder import MANIFEST, read_json

SETTINGS, FIGURES, ROWS = "settings.yaml", "figures.json", "rows.jsonl"
__all__ = ["FIGURES", "MANIFEST", "ROWS", "SETTINGS", "read_figures", "write_measured"]


def write_measured(folder: Path, name: str, measured: Measured) -> None:
    """Keep what a measure found: its rows, then its figures. name: of the evaluation.

    Raises: RunError where a figure is not finite, or the disk does not take it.
    """
    for key, figure in measured.figures.items():
        for value in (figure.value, figure.low, figure.high):
            if value is not None and not math.isfinite(value):
                raise RunError(f"{key} is {value}", f"look at the rows of {folder / ROWS} and at the model")
    about = {
        "name": name,
        "figures": {key: asdict(figure) for key, figure in measured.figures.items()},
        "tables": dict(measured.tables),
        "left_out": dict(measured.left_out),
        "notes": list(measured.notes),
    }
    lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in measured.rows)
    write_whole(folder / ROWS, lines, "out")
    write_whole(folder / FIGURES, json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "out")


def read_figures(folder: Path) -> dict[str, Any] | None:
    """What figures.json holds; None where the evaluation is not done. Raises: UserError where it cannot be read."""
    return read_json(folder / FIGURES, "out")
