"""A step, repeated with half the token budget where it does not fit, and left out where the run may do without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from prefopt.batch import Loss
from prefopt.errors import RunError
from prefopt.train.attempt import OutOfMemory, TooLarge
from prefopt.train.budget import TokenBudget
from prefopt.train.engine import Engine
from prefopt.train.loader import Loader, StepWork
from prefopt.train.nonfinite import NonFiniteError
from prefopt.train.skips import Skips
from prefopt.train.step import train_step

T = TypeVar("T")


class RandomState:
    """The random states that a step draws from, to draw the same again."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """As it was when this was made."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)


def fitted(
    engine: Engine,
    loader: Loader,
    budget: TokenBudget,
    step: int,
    say: Callable[[str], None],
    do: Callable[[StepWork], T],
) -> tuple[T, StepWork]:
    """What `do` makes of a step's rows with the budget in force, or with the half of it that fits, which stays for the
    rest of the run; and the work as it was cut in the end.

    Raises: RunError where a row alone does not fit; whatever `do` raises.
    """
    random = RandomState(engine.device)
    while True:
        tokens = budget.at(step)
        work = loader.take(step, tokens)
        try:
            return do(work), work
        except OutOfMemory as error:
            found = error.found
        # Outside of the handler, so that nothing of the failed pass is held by the error's frames.
        engine.discard_gradients()
        random.restore()
        smaller = _smaller(found, tokens, step)
        budget.set(step, smaller)
        say(f"step {step + 1} did not fit in {tokens} tokens: repeated with {smaller}, which stays")


def fitted_step(
    engine: Engine,
    loss: Loss,
    loader: Loader,
    budget: TokenBudget,
    step: int,
    stop: bool,
    say: Callable[[str], None],
    skips: Skips | None = None,
) -> tuple[dict[str, Any], StepWork]:
    """One optimiser step, `fitted`; what `train_step` gives. skips: which steps may be left out, without an update;
    None: none may.

    Raises: as `fitted` and `train_step`.
    """

    def train(work: StepWork) -> dict[str, Any]:
        try:
            return train_step(engine, loss, work.micro_batches, step, stop, work.baseline, work.spare)
        except NonFiniteError as error:
            if skips is None:
                raise
            seen = skips.take(error)
        engine.discard_gradients()
        return seen

    return fitted(engine, loader, budget, step, say, train)


def _smaller(found: list[TooLarge], tokens: int, step: int) -> int:
    """The budget halved until what did not fit is cut. Raises: RunError where it is one row."""
    for rows, length in found:
        if len(rows) == 1:
            raise RunError(
                f"step {step + 1}: {rows[0]} does not fit in memory by itself, with {length} tokens",
                "a smaller data.max_length, model.checkpoint_every=1, model.lora, or more memory",
            )
    while tokens >= min(length for _, length in found):
        tokens //= 2
    return max(1, tokens)
