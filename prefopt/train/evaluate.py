"""Held-out metrics of a method during training: the training metrics, over a whole set, without an update."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from prefopt.batch import Loss, MicroBatch
from prefopt.model.forward import respond
from prefopt.train.attempt import Attempt
from prefopt.train.couple import observe
from prefopt.train.engine import Engine
from prefopt.train.metrics import Tally, means, tally_batch
from prefopt.train.nonfinite import Findings, NonFiniteError
from prefopt.train.rows import Rows


def evaluate(engine: Engine, loss: Loss, rows: Rows, tokens_per_micro_batch: int) -> dict[str, float]:
    """Means over the set, the same for any number of ranks and any token budget.

    Raises: NonFiniteError on every rank where a log-probability or a loss value is not finite.
    """
    tally = Tally()
    weights: dict[str, float] = {}
    findings = Findings(engine.device)
    engine.module.eval()
    with torch.no_grad():
        baseline = () if rows.baseline is None else _everything(engine, rows.baseline, tokens_per_micro_batch)
        whole = _everything(engine, rows, tokens_per_micro_batch)
        attempt = Attempt(engine, f"evaluation of {rows.name}")
        coupling = observe(engine, loss, whole, baseline, attempt, findings)
        for number, micro_batch in enumerate(_everything(engine, rows, tokens_per_micro_batch)):
            batch = micro_batch.batch.to(engine.device)
            responses = coupling.inform(respond(engine, batch, loss.needs), number)
            output = loss(responses)
            tally_batch(tally, responses, output, micro_batch.real)
            if micro_batch.real:
                findings.look(batch, responses, output)
            weights = {c.name: c.weight for c in output.components}
    engine.module.train()
    tally.add("_nonfinite", findings.count, 0)
    totals = tally.reduce(engine.all_reduce, engine.device)
    if totals.pop("_nonfinite")[0]:
        raise NonFiniteError(f"evaluation of {rows.name}", findings.named(engine.gather))
    found = means(totals, weights)
    return found if coupling.kl is None else {**found, "kl": coupling.kl.item()}


def _everything(engine: Engine, rows: Rows, tokens_per_micro_batch: int) -> Iterator[MicroBatch]:
    """This rank's share of the whole set, packed as it is asked for."""
    for dealt in rows.sweep(engine.world_size, tokens_per_micro_batch):
        yield from rows.micro_batches(dealt, engine.rank)
