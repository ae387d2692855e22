"""A column found in the cache is believed once a few of its rows, scored again, give the same numbers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from prefopt.errors import RunError
from prefopt.settings import RunSettings
from prefopt.train.scoring import Measure

ROWS_CHECKED = 8

FLOAT32, BFLOAT16 = 1e-3, 0.1
"""How far one token's number may lie apart on other hardware or in another cut, in nats. Errors have either sign: over
n tokens they grow like the root of n."""


def rows_to_check(measure: Measure, key: str) -> np.ndarray:
    """Places of a few rows, ascending: one of each class of length, chosen by a hash of `key` and the class."""
    by_length = np.argsort(measure.rows.costs, kind="stable")
    classes = np.array_split(by_length, min(ROWS_CHECKED, len(by_length)) or 1)
    chosen = [int(own[_number(f"{key} {place}") % len(own)]) for place, own in enumerate(classes) if len(own)]
    return np.sort(np.array(chosen, dtype=np.int64))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def of_one_token(run: RunSettings) -> float:
    """`FLOAT32` or `BFLOAT16`, by what the run computes in."""
    return BFLOAT16 if run.model.dtype == "bfloat16" or run.train.autocast == "bf16" else FLOAT32


def allowed(run: RunSettings, tokens: float, number: float) -> float:
    """How far apart a response's log-probability may lie where it is computed twice, in nats.

    tokens: of the response. number: the log-probability; a long response's sum is large, and its rounding with it.
    """
    return of_one_token(run) * max(tokens**0.5, abs(number) / 10)


def compare(
    run: RunSettings, measure: Measure, file: Path, column: np.ndarray, places: np.ndarray, again: np.ndarray
) -> float:
    """The largest difference between a response's number in `column` and in `again`, scored for the rows at `places`.

    Raises: RunError where a difference is beyond what the arithmetic explains.
    """
    largest, start = 0.0, 0
    for place in places:
        own = measure.rows.responses_of(int(place))
        for response in range(own.start, own.stop):
            kept = column[measure.offsets[response] : measure.offsets[response + 1]]
            found = again[start : start + len(kept)]
            start += len(kept)
            difference = abs(float(kept.sum() - found.sum()))
            largest = max(largest, difference)
            most = allowed(run, float(measure.tokens[response]), float(kept.sum()))
            if not difference <= most:
                row = measure.rows[int(place)].id
                raise RunError(
                    f"{file}: {row} scores {found.sum():.6g} and not {kept.sum():.6g} as this file has it"
                    f" ({difference:.3g} apart, {most:.3g} allowed)",
                    "the file is damaged or was made by other code: remove it, and its rows are scored anew",
                )
    return largest
