"""What becomes of a step with numbers that are not finite: it ends the run, or it is left out and counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefopt.train.checkpoint import Progress
from prefopt.train.engine import Engine
from prefopt.train.nonfinite import NonFiniteError
from prefopt.train.track import MetricsFile


class Skips:
    """`train.on_nonfinite`, and the count of `train.max_skipped_steps`, which lies in the run's progress.

    nonfinite.jsonl has an object for each step that was skipped: step, tensors with their rows, all rows.
    """

    def __init__(self, engine: Engine, folder: Path, progress: Progress, say: Callable[[str], None]) -> None:
        train = engine.run.train
        self._limit = train.max_skipped_steps if train.on_nonfinite == "skip_step" else 0
        self._progress = progress
        self._say = say
        # Like metrics.jsonl it is cut back to the checkpoint that a run goes on from.
        self._file = MetricsFile(folder / "nonfinite.jsonl", progress.step, True, engine.is_main and self._limit > 0)

    def take(self, error: NonFiniteError) -> dict[str, Any]:
        """Count the step as skipped; what was measured of it, finite numbers only.

        Raises: `error` itself where the run is to stop, at the latest with one step more than the limit.
        """
        if not self._limit:
            raise error
        if self._progress.skipped >= self._limit:
            error.hint = f"train.max_skipped_steps={self._limit} were skipped before; {error.hint}"
            raise error
        self._progress.skipped += 1
        self._file.write({"step": error.step, "rows": error.rows, "tensors": error.tensors})
        self._say(f"skipped, {self._progress.skipped} of at most {self._limit} steps: {error.message}")
        finite = {key: v for key, v in error.seen.items() if not isinstance(v, float) or math.isfinite(v)}
        return {"skipped": 1, **finite}

    def sync(self) -> None:
        """Onto the disk, before a checkpoint says that these steps are done."""
        self._file.sync()
