"""df_gamed.csv of AlpacaEval: the difficulty of each instruction, and rows of two baselines that gamed the length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prefopt.data.files import read_csv
from prefopt.errors import UserError
from prefopt.evaluate.length_controlled import Floats

_COLUMNS = ("index", "instruction_difficulty", "preference", "std_delta_len")


@dataclass(frozen=True)
class Gamed:
    """difficulty: [instructions]. rows: preference (0 to 1), d / sd(d) and difficulty of each gamed row."""

    difficulty: Floats
    rows: tuple[Floats, Floats, Floats]


def read_gamed(path: Path, expected: int) -> Gamed:
    """Raises: UserError for a file without its columns, with a cell that is no number, or without an instruction."""
    if not path.is_file():
        raise UserError(
            f"measure.difficulty: there is no file {path}",
            "joint, none, or df_gamed.csv of the data set tatsu-lab/alpaca_eval on the hub",
        )
    found: list[list[float]] = []
    for row in read_csv(path, str(path)):
        try:
            cells = [float(row.value[name]) for name in _COLUMNS]
        except KeyError as error:
            raise UserError(f"{path}: there is no column {error}", f"its columns are {', '.join(_COLUMNS)}") from None
        except (TypeError, ValueError):
            raise UserError(f"{row.id}: one of {', '.join(_COLUMNS)} is no number") from None
        if not all(math.isfinite(cell) for cell in cells):
            raise UserError(f"{row.id}: one of {', '.join(_COLUMNS)} is not finite")
        found.append(cells)
    difficulty = {int(cells[0]): cells[1] for cells in reversed(found)}
    absent = next((i for i in range(expected) if i not in difficulty), None)
    if absent is not None:
        raise UserError(f"{path}: no row has index {absent}, of {expected} instructions", "take the whole file")
    gamed = np.array(found)
    return Gamed(np.array([difficulty[i] for i in range(expected)]), (gamed[:, 2], gamed[:, 3], gamed[:, 1]))
