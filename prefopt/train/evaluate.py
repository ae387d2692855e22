"""Held-out metrics of a method during training: the training metrics, over a whole set, without an update."""

from __future__ import annotations

import torch

from prefopt.batch import Loss
from prefopt.errors import RunError
from prefopt.model.forward import respond
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
        for dealt in rows.sweep(engine.world_size, tokens_per_micro_batch):
            for micro_batch in rows.micro_batches(dealt, engine.rank):
                responses = respond(engine, micro_batch.batch.to(engine.device))
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
    return means(totals, weights)
