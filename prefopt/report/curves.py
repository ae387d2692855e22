"""metrics.jsonl as curves: one pass over its lines, whatever state the file is in."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

EVALUATION, SAMPLES = "eval/", "samples/"
"""How the names of held-out metrics and of numbers about answers begin; all others are of training steps."""

_PLACES = ("step", "epoch")
"""Keys of a line that say where it is, and are no metric."""


class Curve(Sequence[tuple[int, float]]):
    """(step, value) pairs in 16 bytes each: a report may hold a thousand runs of a thousand steps."""

    __slots__ = ("steps", "values")

    def __init__(self, points: Iterable[tuple[int, float]] = ()) -> None:
        self.steps = array("q")
        self.values = array("d")
        for step, value in points:
            self.append(step, value)

    def append(self, step: int, value: float) -> None:
        """One more point, at the end."""
        self.steps.append(step)
        self.values.append(value)

    def __len__(self) -> int:
        return len(self.steps)

    @overload
    def __getitem__(self, place: int) -> tuple[int, float]: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[tuple[int, float]]: ...

    def __getitem__(self, place: int | slice) -> tuple[int, float] | Sequence[tuple[int, float]]:
        if isinstance(place, slice):
            return list(zip(self.steps[place], self.values[place]))
        return self.steps[place], self.values[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return f"Curve({list(self)})"


@dataclass
class Metrics:
    """What a metrics.jsonl holds.

    curves: by metric. evaluation: the newest held-out metrics. nonfinite: values that are NaN or infinite, which no
    curve has. broken: lines that are no JSON object with a step. peak_memory_bytes: the largest of any line.
    """

    curves: dict[str, Curve] = field(default_factory=dict)
    evaluation: dict[str, float] = field(default_factory=dict)
    nonfinite: int = 0
    broken: int = 0
    peak_memory_bytes: int | None = None


def read_metrics(file: Path, is_growing: bool) -> Metrics:
    """All lines of a metrics.jsonl; nothing where there is no file.

    is_growing: somebody writes it now, so that a last line without an end is not broken but on its way.

    Raises: OSError where the file is there and cannot be read.
    """
    found = Metrics()
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return found
    lines = text.split("\n")
    if is_growing:
        lines.pop()
    newest, is_sorted = -1, True
    for line in lines:
        if not line:
            continue
        step = _add(line, found)
        if step is None:
            found.broken += 1
            continue
        is_sorted, newest = is_sorted and step >= newest, step
    if not is_sorted:  # two starts wrote into one file; steps then come twice, and stay in the order of writing
        found.curves = {name: Curve(sorted(curve, key=_step)) for name, curve in found.curves.items()}
    memory = found.curves.get("peak_memory_bytes")
    found.peak_memory_bytes = int(max(memory.values)) if memory else None
    return found


def _add(line: str, found: Metrics) -> int | None:
    """Take over a line; its step, or None where it is broken."""
    try:
        values = json.loads(line)
        step = values["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if type(step) is not int or not -(2**63) <= step < 2**63:
        return None
    evaluation = {}
    for name, value in values.items():
        if type(value) not in (float, int) or name in _PLACES:
            continue
        number = _as_float(value)
        if not math.isfinite(number):
            found.nonfinite += 1
            continue
        if name not in found.curves:
            found.curves[name] = Curve()
        found.curves[name].append(step, number)
        if name.startswith(EVALUATION):
            evaluation[name] = number
    if evaluation:
        found.evaluation = evaluation
    return step


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf


def _step(point: tuple[int, float]) -> int:
    return point[0]
