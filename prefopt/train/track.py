"""metrics.jsonl, which is always written, and the experiment tracker, where one is asked for."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from prefopt.disk import disk_error, what_to_do, write_whole
from prefopt.durable import sync
from prefopt.errors import RunError, UserError
from prefopt.settings import RunSettings
from prefopt.train.engine import Engine
from prefopt.train.memory import peak


class MetricsFile:
    """One JSON object per line: step, epoch, every metric. Written by rank 0."""

    def __init__(self, path: Path, done: int, looked: bool, shown: bool) -> None:
        """done: steps done at the checkpoint a run goes on from; later lines of an earlier attempt are taken back.

        looked: whether evaluation and samples after step `done` belong to the checkpoint, where there were any.
        """
        self._file = None
        self._path = path
        if not shown:
            return
        if path.exists():
            limit = (done, looked)
            kept = [line for line in path.read_text(encoding="utf-8").split("\n") if _place(line) <= limit]
            write_whole(path, "".join(f"{line}\n" for line in kept))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the run
        sync(path.parent)

    def write(self, values: dict[str, Any]) -> None:
        """Append a line; numbers keep every digit.

        Raises: RunError where the disk is full or fails.
        """
        if self._file is not None:
            line = json.dumps(values) + "\n"
            with self._told():
                self._file.write(line)
                self._file.flush()

    def sync(self) -> None:
        """Onto the disk, before a checkpoint says that these steps are done.

        Raises: RunError where the disk is full or fails.
        """
        if self._file is not None:
            with self._told():
                os.fsync(self._file.fileno())

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            said, number = disk_error(error)
            raise RunError(f"{self._path} cannot be written: {said}", what_to_do(number)) from None


def _place(line: str) -> tuple[float, bool]:
    """The step of a line, and whether it is of another look at it; infinite for one that is empty or cut in half."""
    try:
        values = json.loads(line)
        return values["step"], "lr" not in values
    except (ValueError, KeyError):
        return float("inf"), True


class Clock:
    """Throughput and memory of a step."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._start = time.perf_counter()

    def restart(self) -> None:
        """Call before a step: evaluation and saving do not count."""
        if self._engine.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._engine.device)
        self._start = time.perf_counter()

    def read(self, tokens: float, pairs: float, waited: float) -> dict[str, float]:
        """tokens: places on the token axis of all ranks in the step; pairs: what fills the batch size.

        waited: seconds of the step in which this rank had no micro-batches yet.
        """
        seconds = time.perf_counter() - self._start
        return {
            "tokens_per_second": tokens / seconds,
            "pairs_per_second": pairs / seconds,
            "data_wait_share": waited / seconds,
            "peak_memory_bytes": peak(self._engine.device),
        }


class Tracker:
    """The experiment tracker of the recipe, by accelerate; nothing where the recipe says none.

    Raises: UserError where the tracker's library is not installed (accelerate would go on without a word).
    """

    def __init__(self, engine: Engine, run: RunSettings, run_dir: Path) -> None:
        self._tracker = None
        if run.tracker.name == "none" or not engine.is_main:
            return
        if find_spec(run.tracker.name) is None:
            raise UserError(
                f"tracker={run.tracker.name}: the library is not installed",
                f"pip install 'prefopt[{run.tracker.name}]'",
            )
        tracker_class = LOGGER_TYPE_TO_CLASS[run.tracker.name]
        places = {"logging_dir": str(run_dir)} if tracker_class.requires_logging_directory else {}
        file = run_dir / "tracker.json"
        before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        same, kept = _same_run(run, before)
        self._tracker = tracker_class(run.tracker.project, **places, **same)
        self._tracker.start()
        if run.tracker.name == "mlflow":
            kept = {"mlflow": self._tracker.active_run.info.run_id}
        if "run_id" not in same:  # MLflow refuses to be told a setting twice where it has changed
            self._tracker.store_init_configuration(_flat(asdict(run)))
        if kept != before and kept:
            write_whole(file, json.dumps(kept) + "\n")

    def log(self, values: dict[str, Any], step: int) -> None:
        """Numbers of a step."""
        if self._tracker is not None:
            self._tracker.log({k: v for k, v in values.items() if k != "step"}, step=step)

    def close(self) -> None:
        """Flush and end."""
        if self._tracker is not None:
            self._tracker.finish()


def _same_run(run: RunSettings, before: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What makes a run that goes on the same one in its tracker too, and what tracker.json keeps of it.

    TensorBoard's lies in the run folder. MLflow names its runs itself, the others take our name.
    """
    name = run.tracker.name
    if name == "mlflow":
        return ({"run_id": before[name]} if name in before else {"run_name": run.name}), before
    if name not in ("wandb", "trackio"):
        return {}, before
    kept = before.get(name) or uuid.uuid4().hex[:12]
    names = {"id": kept, "name": run.name} if name == "wandb" else {"name": f"{run.name}-{kept}"}
    return {**names, "resume": "allow"}, {name: kept}


def _flat(settings: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[before + key] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat
