"""Held-out metrics of a method during training: the training metrics, over a whole set, without an update."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import torch

from prefopt.batch import Loss, MicroBatch
from prefopt.losses.terms import terms
from prefopt.model.forward import respond
from prefopt.train.attempt import Attempt
from prefopt.train.couple import observe
from prefopt.train.engine import Engine
from prefopt.train.metrics import Tally, means, tally_batch
from prefopt.train.nonfinite import Findings
from prefopt.train.rows import Rows
from prefopt.train.signals import StopFlag

MICRO_BATCHES_PER_LOOK = 4
"""How often ranks tell each other whether somebody asked to stop: a large set takes longer than a cluster's grace."""


class EvaluationStopped(Exception):
    """Somebody asked to stop; raised on every rank. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def evaluate(
    engine: Engine, loss: Loss, rows: Rows, tokens_per_micro_batch: int, stop_flag: StopFlag
) -> dict[str, float]:
    """Means over the set, the same for any number of ranks and any token budget.

    Raises, on every rank: NonFiniteError where a log-probability or a loss value is not finite. EvaluationStopped after
        a signal to one of them; the policy then trains on as if nothing had been evaluated.
    """
    engine.module.eval()
    try:
        return _evaluate(engine, loss, rows, tokens_per_micro_batch, stop_flag)
    finally:
        engine.module.train()


def _evaluate(
    engine: Engine, loss: Loss, rows: Rows, tokens_per_micro_batch: int, stop_flag: StopFlag
) -> dict[str, float]:
    def everything(of: Rows) -> Iterator[MicroBatch]:
        return _everything(engine, of, tokens_per_micro_batch, stop_flag)

    tally = Tally()
    weights: dict[str, float] = {}
    findings = Findings(engine.device)
    with torch.no_grad():
        baseline = () if rows.baseline is None else everything(rows.baseline)
        attempt = Attempt(engine, f"evaluation of {rows.name}")
        coupling = observe(engine, loss, everything(rows), baseline, attempt, findings)
        for number, micro_batch in enumerate(everything(rows)):
            batch = micro_batch.batch.to(engine.device)
            responses = coupling.inform(respond(engine, batch, loss.needs), number)
            output = terms(loss, responses)
            tally_batch(tally, responses, output, micro_batch.real)
            if micro_batch.real:
                findings.look(batch, responses, output)
            weights = {c.name: c.weight for c in output.components}
    tally.add("_nonfinite", findings.count, 0)
    totals = tally.reduce(engine.all_reduce, engine.device)
    if totals.pop("_nonfinite")[0]:
        raise findings.error(f"evaluation of {rows.name}", engine.gather)
    found = means(totals, weights)
    return found if coupling.kl is None else {**found, "kl": coupling.kl.item()}


def _everything(engine: Engine, rows: Rows, tokens_per_micro_batch: int, stop_flag: StopFlag) -> Iterator[MicroBatch]:
    """This rank's share of the whole set, as many micro-batches as every other rank has.

    Raises: EvaluationStopped.
    """
    numbers = count()
    for dealt in rows.sweep(engine.world_size, tokens_per_micro_batch):
        for micro_batch in rows.micro_batches(dealt, engine.rank):
            if next(numbers) % MICRO_BATCHES_PER_LOOK == 0 and (signal := engine.largest(stop_flag.number)):
                raise EvaluationStopped(signal)
            yield micro_batch
