"""Reference log-probabilities as columns, scored once and shared by every run; and the live reference."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from prefopt.batch import Responses
from prefopt.errors import RunError, UserError
from prefopt.model.files import fingerprint, model_folder
from prefopt.model.forward import Forward, respond
from prefopt.model.layout import settle_layout
from prefopt.model.load import load_policy
from prefopt.model.policy import Policy
from prefopt.needs import LIVE
from prefopt.settings import RunSettings
from prefopt.train.engine import Engine
from prefopt.train.rows import Rows

CODE_VERSION = 1
"""Raise it whenever a change here or in the forward changes the numbers: old columns are then not found."""


def column_key(run: RunSettings, rows: Rows, layout: str, model: str | None = None, **more: str) -> str:
    """Hash of all that decides a column: weights, rows, precision, layout, code. Adapters play no part (off).

    model: the fingerprint of another model than the reference. more: what else it depends on.
    """
    if model is None:
        model = fingerprint(_reference_folder(run))
    content = {
        "code": CODE_VERSION,
        "model": model,
        "rows": rows.data.fingerprint,
        "dtype": run.model.dtype if run.model.base == "plain" else f"{run.model.dtype} {run.model.base}",
        "autocast": run.train.autocast,
        "layout": layout,
        **more,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def _reference_folder(run: RunSettings) -> Path:
    """Where the reference lies. A revision is one of `model.path` and says nothing of another repository."""
    if names_another_reference(run):
        assert run.model.reference is not None
        return model_folder(run.model.reference)
    return model_folder(run.model.path, run.model.revision)


def attach_reference(
    engine: Engine, needs: frozenset[str], rows: Rows, cache: Path, longest: int, say: Callable[[str], None]
) -> int:
    """Give `rows` (and their baseline) their reference columns, cached or scored; returns the number of rows scored.

    Call before the first update and before a checkpoint is loaded: the policy, adapters off, still is the reference
    then, unless the recipe names another. needs: the loss's; with "reference_tokens" every token gets its number.
    longest: tokens of the longest sequence.

    Raises: RunError where a reference log-probability is not finite.
    """
    scored = 0 if rows.baseline is None else attach_reference(engine, frozenset(), rows.baseline, cache, longest, say)
    by_token = "reference_tokens" in needs
    more = {"per": "token"} if by_token else {}
    key = column_key(engine.run, rows, engine.policy.layout, **more) if engine.is_main else ""
    file = cache / "reference" / f"{engine.gather(key)[0]}.npy"
    found = engine.gather(file.exists())[0]
    if not found:
        say(f"scoring the reference on {len(rows)} rows of {rows.name}")
        with _reference_forward(engine, longest) as forward:
            column = score_tokens(engine, forward, rows) if by_token else score(engine, forward, rows)
        if engine.is_main:
            write_column(file, column)
        engine.barrier()
    column = np.load(file)
    if by_token:
        rows.set_reference_tokens(column)
    else:
        rows.set_reference(column)
    _check_finite(rows, column, rows.token_offsets if by_token else np.arange(rows.num_responses + 1))
    return scored + (0 if found else len(rows))


def _check_finite(rows: Rows, column: np.ndarray, offsets: np.ndarray) -> None:
    """Raises: RunError naming the first row with a number that is not finite."""
    if np.isfinite(column).all():
        return
    for place in range(len(rows)):
        own = rows.responses_of(place)
        if not np.isfinite(column[offsets[own.start] : offsets[own.stop]]).all():
            raise RunError(
                f"the reference's log-probability of {rows[place].id} is not finite", "check that row and the model"
            )


@contextmanager
def _reference_forward(engine: Engine, longest: int) -> Iterator[Forward]:
    """The reference as a forward: the policy with adapters off, or the model that the recipe names."""
    if not names_another_reference(engine.run):
        engine.module.eval()
        with engine.policy.reference():
            yield engine
        engine.module.train()
        return
    policy = _load_reference(engine, longest)
    with engine.accelerator.autocast():
        yield policy


def names_another_reference(run: RunSettings) -> bool:
    """Whether the reference is not the model that the run starts from."""
    return run.model.reference is not None and run.model.reference != run.model.path


def _load_reference(engine: Engine, longest: int) -> Policy:
    """The reference as a frozen model of its own on this rank's device."""
    if engine.zero_stage == 3:
        raise UserError(
            "model.reference: a reference beside the policy cannot be sharded yet", "use ZeRO-2, DDP or model.lora"
        )
    policy = load_policy(engine.run.model, engine.run.model.reference, longest=longest, adapters=False)
    policy = policy.to(engine.device).eval().requires_grad_(False)
    settle_layout(policy, policy, engine.policy.layout)
    return policy


def attach_live_reference(engine: Engine, needs: frozenset[str], longest: int, say: Callable[[str], None]) -> None:
    """Give the engine a live reference where the method compares distributions: none is needed where adapters can be
    switched off, else a frozen copy of the start (or of the model that the recipe names) stays in memory.

    Raises: UserError under ZeRO-3, where such a copy cannot be sharded.
    """
    if not needs & LIVE:
        return
    if engine.policy.has_adapters and not names_another_reference(engine.run):
        return
    say("the method compares whole distributions: a frozen copy of the reference stays in memory")
    engine.live_reference = _load_reference(engine, longest)


def score(engine: Engine, forward: Forward, rows: Rows) -> np.ndarray:
    """Log-probability of every response, over all ranks: [all responses] float64, in nats."""
    return score_with(engine, forward, rows, lambda r: r.logps, np.arange(rows.num_responses + 1))


def score_tokens(engine: Engine, forward: Forward, rows: Rows) -> np.ndarray:
    """Log-probability of every response token, over all ranks: [all response tokens] float64, in nats."""
    return score_with(engine, forward, rows, lambda r: r.token_logps.double(), rows.token_offsets)


def score_with(
    engine: Engine,
    forward: Forward,
    rows: Rows,
    values_of: Callable[[Responses], torch.Tensor],
    offsets: np.ndarray,
) -> np.ndarray:
    """A column of numbers over all ranks, without gradients: [offsets[-1]] float64.

    values_of: those of a batch, in the order of its responses. offsets: where each response's begin in the column.
    """
    column = torch.zeros(int(offsets[-1]), dtype=torch.float64, device=engine.device)
    with torch.no_grad():
        for dealt in rows.sweep(engine.world_size, engine.run.train.tokens_per_micro_batch):
            shares = dealt.micro_batches[engine.rank]
            for places, micro_batch in zip(shares, rows.micro_batches(dealt, engine.rank), strict=True):
                values = values_of(respond(forward, micro_batch.batch.to(engine.device))).double()
                start = 0
                for place in places:  # empty where this rank only keeps the others company
                    own = rows.responses_of(place)
                    target = slice(int(offsets[own.start]), int(offsets[own.stop]))
                    column[target] = values[start : start + target.stop - target.start]
                    start += target.stop - target.start
    return engine.all_reduce(column).cpu().numpy()


def write_column(file: Path, column: np.ndarray) -> None:
    """A column into the cache, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with open(temporary, "wb") as out:
        np.save(out, column)
    temporary.replace(file)  # whole or not there, also when several runs of a sweep score at once
