"""Reference log-probabilities as columns: which model gives them, and that every run of a sweep shares them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from prefopt.errors import RunError, UserError
from prefopt.model.files import fingerprint, model_folder
from prefopt.model.forward import Forward
from prefopt.model.layout import settle_layout
from prefopt.model.load import load_policy
from prefopt.model.policy import Policy
from prefopt.settings import RunSettings
from prefopt.train.column_cache import cached_column, column_key
from prefopt.train.engine import Engine
from prefopt.train.rows import Rows
from prefopt.train.scoring import Measure, sequence_logps, token_logps


def attach_reference(
    engine: Engine, needs: frozenset[str], rows: Rows, cache: Path, longest: int, say: Callable[[str], None]
) -> int:
    """Give `rows` (and their baseline) their reference columns, cached or scored; returns the number of rows scored.

    Call before the first update and before a checkpoint is loaded: the policy, adapters off, still is the reference
    then, unless the recipe names another. needs: the loss's; with "reference_tokens" every token gets its number.
    longest: tokens of the longest sequence.

    Raises: RunError where a reference log-probability is not finite, or a kept one is not what the reference gives.
    """
    scored = 0 if rows.baseline is None else attach_reference(engine, frozenset(), rows.baseline, cache, longest, say)
    by_token = "reference_tokens" in needs
    key = ""
    if engine.is_main:  # adapters play no part: they are off
        model = fingerprint(_reference_folder(engine.run))
        key = column_key(engine.run, rows, engine.policy.layout, model, "tokens" if by_token else "")
    file = cache / "reference" / f"{engine.gather(key)[0]}.npy"
    measure = token_logps(rows) if by_token else sequence_logps(rows)
    is_apart = engine.zero_stage == 3 and names_another_reference(engine.run)
    unverified = "under ZeRO-3 no reference is loaded beside the policy" if is_apart else ""
    column, count = cached_column(
        engine, measure, file, "the reference", lambda: _reference_forward(engine, longest), say, unverified
    )
    if by_token:
        rows.set_reference_tokens(column)
    else:
        rows.set_reference(column)
    _check_finite(measure, column)
    return scored + count


def _reference_folder(run: RunSettings) -> Path:
    """Where the reference lies. A revision is one of `model.path` and says nothing of another repository."""
    if names_another_reference(run):
        assert run.model.reference is not None
        return model_folder(run.model.reference)
    return model_folder(run.model.path, run.model.revision)


def _check_finite(measure: Measure, column: np.ndarray) -> None:
    """Raises: RunError naming the first row with a number that is not finite."""
    if np.isfinite(column).all():
        return
    first = int(np.argmin(np.isfinite(column)))
    place = int(np.searchsorted(measure.row_offsets, first, side="right")) - 1
    raise RunError(
        f"the reference's log-probability of {measure.rows[place].id} is not finite", "check that row and the model"
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
    policy = load_reference(engine, longest)
    with engine.accelerator.autocast():
        yield policy


def names_another_reference(run: RunSettings) -> bool:
    """Whether the reference is not the model that the run starts from."""
    return run.model.reference is not None and run.model.reference != run.model.path


def load_reference(engine: Engine, longest: int) -> Policy:
    """The reference as a frozen model of its own on this rank's device.

    Raises: UserError under ZeRO-3, where it cannot be sharded.
    """
    if engine.zero_stage == 3:
        raise UserError(
            "model.reference: a reference beside the policy cannot be sharded yet", "use ZeRO-2, DDP or model.lora"
        )
    policy = load_policy(engine.run.model, engine.run.model.reference, longest=longest, adapters=False)
    policy = policy.to(engine.device).eval().requires_grad_(False)
    settle_layout(policy, policy, engine.policy.layout)
    if not names_another_reference(engine.run):
        policy.kernel = engine.policy.kernel  # tried for these heads
    return policy
