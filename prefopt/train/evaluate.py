"""Held-out metrics of a method during training: the training metrics, over a whole set, without an update."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from prefopt.batch import Loss, MicroBatch
from prefopt.errors import RunError
from prefopt.model.forward import respond
from prefopt.train.attempt import Attempt
from prefopt.train.couple import observe
from prefopt.train.engine import Engine
from prefopt.train.metrics import Tally, means, nonfinite, tally_batch
from prefopt.train.rows import Rows


def evaluate(engine: Engine, loss: Loss, rows: Rows, tokens_per_micro_batch: int) -> dict[str, float]:
    """Means over the set, the same for any number of ranks and any token budget.

    Raises: RunError where a log-probability or a loss value is not finite.
    """
    tally = Tally()
    weights: dict[str, float] = {}
    bad = torch.zeros((), dtype=torch.int64, device=engine.device)
    engine.module.eval()
    with torch.no_grad():
        baseline = () if rows.baseline is None else _everything(engine, rows.baseline, tokens_per_micro_batch)
        whole = _everything(engine, rows, tokens_per_micro_batch)
        coupling = observe(engine, loss, whole, baseline, Attempt(engine, f"evaluation of {rows.name}"))
        for number, micro_batch in enumerate(_everything(engine, rows, tokens_per_micro_batch)):
            responses = respond(engine, micro_batch.batch.to(engine.device), loss.needs)
            responses = coupling.inform(responses, number)
            output = loss(responses)
            tally_batch(tally, responses, output, micro_batch.real)
            bad = bad + nonfinite(responses, output) * int(micro_batch.real)
            weights = {c.name: c.weight for c in output.components}
    engine.module.train()
    tally.add("_nonfinite", bad, 0)
    totals = tally.reduce(engine.all_reduce, engine.device)
    count = int(totals.pop("_nonfinite")[0])
    if count:
        raise RunError(f"evaluation of {rows.name}: {count} log-probabilities or loss values are not finite")
    found = means(totals, weights)
    return found if coupling.kl is None else {**found, "kl": coupling.kl.item()}


def _everything(engine: Engine, rows: Rows, tokens_per_micro_batch: int) -> Iterator[MicroBatch]:
    """This rank's share of the whole set, packed as it is asked for."""
    for dealt in rows.sweep(engine.world_size, tokens_per_micro_batch):
        yield from rows.micro_batches(dealt, engine.rank)
