"""What two runs cost: time, throughput and memory, from their folders."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefopt.errors import UserError
from prefopt.run_folder import MANIFEST, RESULT, read_json


@dataclass(frozen=True)
class RunCost:
    """What a done run cost.

    seconds: of its last start, evaluation and saving included. starts: how many there were; with more than one,
    `seconds` is not the whole. pairs_per_second: median over the lines of metrics.jsonl (for SFT and labels responses,
    for rankings prompts). peak_memory_bytes: the largest of any line; on a CPU that of the process. device: as the last
    start found it, with processes and engine. broken: lines that could not be read.
    """

    run: str
    loss: str
    steps: int
    seconds: float
    starts: int
    pairs_per_second: float | None
    peak_memory_bytes: int | None
    device: str
    broken: int

    def row(self) -> dict[str, Any]:
        """For a table."""
        names = ("run", "loss", "steps", "starts", "seconds", "pairs_per_second", "peak_memory_bytes", "device")
        return {name: getattr(self, name) for name in names}


def read_cost(folder: Path) -> RunCost:
    """The cost of the run in a folder.

    Raises: UserError where the folder is no run, or the run is not done.
    """
    result = read_json(folder / RESULT, "measure.runs")
    if result is None or not isinstance(result.get("seconds"), (int, float)):
        raise UserError(
            f"measure.runs: {folder} is no run that is done (it has no {RESULT} with seconds)",
            "give the folder of a finished `prefopt train`, or leave measure.runs out",
        )
    manifest = read_json(folder / MANIFEST, "measure.runs") or {}
    starts = manifest.get("starts") or [{}]
    world = starts[-1].get("world") or {}
    speeds, peaks, broken = _lines(folder / "metrics.jsonl")
    return RunCost(
        str(folder),
        str(((manifest.get("settings") or {}).get("loss") or {}).get("name", "")),
        int(result.get("steps", 0)),
        float(result["seconds"]),
        len(starts),
        statistics.median(speeds) if speeds else None,
        max(peaks, default=None),
        " ".join(str(world[key]) for key in ("num_processes", "device", "engine") if key in world),
        broken,
    )


def ratio(first: float | None, second: float | None) -> float | None:
    """first / second, where both are known and the second is not 0."""
    return first / second if first is not None and second else None


def _lines(path: Path) -> tuple[list[float], list[int], int]:
    """Pairs per second and peak memory of every line that has them, and how many lines cannot be read."""
    speeds: list[float] = []
    peaks: list[int] = []
    broken = 0
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            speed, peak = values.get("pairs_per_second"), values.get("peak_memory_bytes")
        except (ValueError, AttributeError, RecursionError):  # a killed run may leave half a line
            broken += 1
            continue
        if isinstance(speed, (int, float)) and math.isfinite(speed):
            speeds.append(float(speed))
        if isinstance(peak, (int, float)) and math.isfinite(peak):
            peaks.append(int(peak))
    return speeds, peaks, broken
