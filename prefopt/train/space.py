"""Whether the disk can hold what a run will write, told before anything is scored and not after hours of steps.

What counts is checkpoints and the saved model. Logs, metrics and samples are small; encoded data and columns lie in the
cache, where they are before the first step.
"""

from __future__ import annotations

import shutil
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import Parameter

from prefopt.data.plan import Plan
from prefopt.disk import size
from prefopt.errors import RunError
from prefopt.model.load import DTYPES
from prefopt.optimiser_bytes import optimiser_bytes
from prefopt.settings import TrainSettings
from prefopt.train.bfloat16 import Float32Updates
from prefopt.train.engine import Engine
from prefopt.train.engine_plain import trainable
from prefopt.train.parts import WEIGHT

_PER_PART = 256
"""Bytes of a tensor's name and place in a safetensors file, at most."""
_PER_RANK = 2**15
"""Bytes of a rank's random states, its entry in the manifest, and what a file system rounds its files up to."""


class Need(NamedTuple):
    """What a run takes on its disk, in bytes. checkpoint, model: of one.

    writing: how many checkpoints there are while one is written. kept: how many when the model is saved.
    """

    checkpoint: int
    model: int
    writing: int
    kept: int

    @property
    def total(self) -> int:
        return max(self.writing * self.checkpoint, self.kept * self.checkpoint + self.model)


def check_space(engine: Engine, folder: Path, num_saves: int, start: Path) -> None:
    """Compare what the run will write with the room that its disk has. Every rank must call.

    folder: of the run. num_saves: checkpoints that the whole run will write. start: the folder of the model that it
    begins with, whose tokenizer is saved too. Quotas are not seen: a disk says nothing of them.

    Raises: RunError on every rank where there is too little.
    """
    checkpoint = _checkpoint_bytes(engine)
    refusal = None
    if engine.is_main:
        keep, best = engine.run.train.keep_checkpoints, engine.run.train.best_metric
        need = need_of(checkpoint, _model_bytes(engine, start), num_saves, keep, keeps_best=best is not None)
        refusal = too_little(need, folder, keep)
    if refusal := engine.gather(refusal)[0]:
        raise refusal


def num_saves(train: TrainSettings, plan: Plan) -> int:
    """Checkpoints that a whole run may write: those that are due, the last, and one of each best evaluation."""
    often = [train.save_every] + ([train.eval_every] if train.best_metric else [])
    return 1 + sum(any(plan.is_due(every, step) for every in often) for step in range(1, len(plan)))


def need_of(checkpoint: int, model: int, num_saves: int, keep: int, keeps_best: bool) -> Need:
    """What a run takes that keeps `keep` checkpoints, at least one, and the best besides."""
    kept = min(max(1, keep) + keeps_best, num_saves)
    return Need(checkpoint, model, writing=min(kept + 1, num_saves), kept=kept)


def too_little(need: Need, folder: Path, keep: int) -> RunError | None:
    """The error to raise where the disk has less room than a run needs; its own checkpoints so far count as room."""
    checkpoints = folder / "checkpoints"
    free = shutil.disk_usage(checkpoints if checkpoints.exists() else folder).free
    room = free + sum(_bytes_of(path) for path in checkpoints.glob("*step-*"))
    if need.total <= room:
        return None
    hint = "free some space, or another disk: dir=FOLDER"
    if keep > 1 and need._replace(writing=min(need.writing, 2), kept=1).total <= room:
        hint = f"train.keep_checkpoints=1, {hint}"
    own = f" and {size(room - free)} in its checkpoints" if room > free else ""
    return RunError(
        f"this run needs {size(need.total)} of disk: {need.writing} checkpoints of {size(need.checkpoint)} while one is"
        f" written, {need.kept} and the model of {size(need.model)} at the end; {folder} has {size(free)} free{own}",
        hint,
    )


def _checkpoint_bytes(engine: Engine) -> int:
    """Of all ranks' parts. Before the first update most optimisers have no states yet; they are counted by shapes."""
    parts = engine.kind.state().parts
    own = sum(part.values.numel() * part.values.element_size() + _PER_PART for part in parts)
    found = engine.gather((own, any(part.what != WEIGHT for part in parts)))
    total = sum(bytes_ for bytes_, _ in found) + _PER_RANK * engine.world_size
    if any(has_states for _, has_states in found):
        return total
    shapes = [_shape(p) for p in trainable(engine.policy).values()]
    states = optimiser_bytes(shapes, engine.run.optim.name)
    if not isinstance(engine.optimizer, Float32Updates) and all(p.values.dtype == torch.bfloat16 for p in parts):
        states //= 2  # an optimiser that was given bfloat16 weights keeps bfloat16 states
    return total + states + 3 * _PER_PART * len(shapes)


def _model_bytes(engine: Engine, start: Path) -> int:
    """Of the saved model: adapters or all weights, in the precision that they came in, configuration and tokenizer."""
    settings = engine.run.model
    has_adapters = settings.lora is not None
    saved = trainable(engine.policy) if has_adapters else dict(engine.policy.named_parameters())
    per_number = 4 if has_adapters else DTYPES[settings.dtype].itemsize
    beside = sum(file.stat().st_size for pattern in _BESIDE for file in start.glob(pattern))
    return sum(prod(_shape(p)) * per_number + _PER_PART for p in saved.values()) + beside + _PER_RANK


_BESIDE = ("*.json", "*.model", "*.txt", "*.jinja")
"""What a model's folder has besides its weights."""


def _shape(parameter: Parameter) -> tuple[int, ...]:
    """Of the whole parameter; under ZeRO-3 the local tensor is a flat shard (DeepSpeed's `ds_shape`)."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
