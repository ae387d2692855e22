"""Reference log-probabilities as a column: a float per response, scored once, shared by every run that asks for it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from prefopt.batch import Batch
from prefopt.errors import RunError, UserError
from prefopt.model.files import fingerprint, model_folder
from prefopt.model.forward import respond
from prefopt.model.layout import settle_layout
from prefopt.model.load import load_policy
from prefopt.settings import RunSettings
from prefopt.train.engine import Engine
from prefopt.train.rows import Rows

Forward = Callable[[Batch], tuple[torch.Tensor, torch.Tensor]]

CODE_VERSION = 1
"""Raise it whenever a change here or in the forward changes the numbers: old columns are then not found."""


def column_key(run: RunSettings, rows: Rows, layout: str) -> str:
    """Hash of all that decides the column: weights, rows, precision, layout, code. Adapters play no part (off)."""
    content = {
        "code": CODE_VERSION,
        "model": fingerprint(model_folder(run.model.reference or run.model.path, run.model.revision)),
        "rows": rows.data.fingerprint,
        "dtype": run.model.dtype,
        "autocast": run.train.autocast,
        "layout": layout,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def attach_reference(engine: Engine, rows: Rows, cache: Path, longest: int, say: Callable[[str], None]) -> int:
    """Give `rows` their reference column, from the cache or by scoring; returns the number of rows scored.

    Call before the first update and before a checkpoint is loaded: the policy, adapters off, still is the reference
    then, unless the recipe names another. longest: tokens of the longest sequence.

    Raises: RunError where a reference log-probability is not finite.
    """
    key = column_key(engine.run, rows, engine.policy.layout) if engine.is_main else ""
    file = cache / "reference" / f"{engine.gather(key)[0]}.npy"
    found = engine.gather(file.exists())[0]
    if not found:
        say(f"scoring the reference on {len(rows)} rows of {rows.name}")
        with _reference_forward(engine, longest) as forward:
            column = score(engine, forward, rows)
        if engine.is_main:
            _write(file, column)
        engine.barrier()
    column = np.load(file)
    if not np.isfinite(column).all():
        first = next(p for p in range(len(rows)) if not np.isfinite(column[rows.responses_of(p)]).all())
        raise RunError(
            f"the reference's log-probability of {rows[first].id} is not finite", "check that row and the model"
        )
    rows.set_reference(column)
    return 0 if found else len(rows)


@contextmanager
def _reference_forward(engine: Engine, longest: int) -> Iterator[Forward]:
    """The reference as a forward: the policy with adapters off, or the model that the recipe names."""
    named = engine.run.model.reference
    if named is None or named == engine.run.model.path:
        engine.module.eval()
        with engine.policy.reference():
            yield engine
        engine.module.train()
        return
    if engine.zero_stage == 3:
        raise UserError("model.reference: another reference than the start cannot be sharded yet", "use ZeRO-2 or DDP")
    policy = load_policy(engine.run.model, named, longest=longest, adapters=False).to(engine.device).eval()
    settle_layout(policy, policy, engine.policy.layout)
    with engine.accelerator.autocast():
        yield policy


def score(engine: Engine, forward: Forward, rows: Rows) -> np.ndarray:
    """Log-probability of every response, over all ranks: [all responses] float64, in nats."""
    column = torch.zeros(rows.num_responses, dtype=torch.float64, device=engine.device)
    with torch.no_grad():
        for dealt in rows.sweep(engine.world_size, engine.run.train.tokens_per_micro_batch):
            shares = dealt.micro_batches[engine.rank]
            for places, micro_batch in zip(shares, rows.micro_batches(dealt, engine.rank), strict=True):
                logps = respond(forward, micro_batch.batch.to(engine.device)).logps
                start = 0
                for place in places:  # empty where this rank only keeps the others company
                    target = rows.responses_of(place)
                    column[target] = logps[start : start + target.stop - target.start]
                    start += target.stop - target.start
    return engine.all_reduce(column).cpu().numpy()


def _write(file: Path, column: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with open(temporary, "wb") as out:
        np.save(out, column)
    temporary.replace(file)  # whole or not there, also when several runs of a sweep score at once
