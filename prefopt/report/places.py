"""Where runs lie: what the paths of a report's command line name, or hold somewhere below them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from prefopt.errors import UserError
from prefopt.report.evaluations import FIGURES
from prefopt.run_folder import RUN
from prefopt.sweeps.record import RECORD

SWEEP, TRAINED, EVALUATED = "sweep", "run", "evaluation"

_MARKS = {RECORD: SWEEP, RUN: TRAINED, FIGURES: EVALUATED}
"""The file by which a folder is told, in the order in which they are looked for."""


def find_places(paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """(kind, folder) of every run, sweep and evaluation that the paths are or hold, each once, in their order.

    What lies inside a run is the run's and is not looked for. Sweeps come before the runs that lie beside them.

    Raises: UserError for a path that is not there, is no folder, holds nothing of these, or cannot be looked into.
    """
    found: dict[Path, tuple[str, Path]] = {}
    for path in paths:
        if not path.exists():
            raise UserError(
                f"{path}: there is no such folder", "give run folders, folders that hold some, or a sweep's"
            )
        if not path.is_dir():
            raise UserError(f"{path} is a file, not a folder", f"give the folder of the run: {path.parent}")
        here = sorted(_below(path), key=lambda place: place[0] != SWEEP)
        if not here:
            raise UserError(
                f"{path} holds no run: no folder in it has {RUN}, {RECORD} or {FIGURES}",
                "give a folder that `prefopt train`, `prefopt train -m` or `prefopt eval` has written",
            )
        for kind, folder in here:
            found.setdefault(folder.resolve(), (kind, folder))
    return list(found.values())


def kind_of(folder: Path) -> str:
    """What a folder itself is; "" where it is none of the three."""
    return next((kind for mark, kind in _MARKS.items() if (folder / mark).is_file()), "")


def _below(path: Path) -> Iterator[tuple[str, Path]]:
    for folder, inside, files in os.walk(path, onerror=_refuse):
        kind = next((kind for mark, kind in _MARKS.items() if mark in files), "")
        if kind:
            inside.clear()
            yield kind, Path(folder)
        else:
            inside[:] = sorted(name for name in inside if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}", "name the folders beside it one by one")
