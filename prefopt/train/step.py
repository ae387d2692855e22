"""One optimiser step, the same gradient however the work was cut."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import torch

from prefopt.batch import Loss, MicroBatch, Unit
from prefopt.errors import RunError
from prefopt.losses.terms import check_trains, terms
from prefopt.model.forward import respond
from prefopt.train.attempt import Attempt
from prefopt.train.couple import observe
from prefopt.train.engine import Engine
from prefopt.train.memory import is_out_of_memory
from prefopt.train.metrics import Tally, means, tally_batch
from prefopt.train.nonfinite import Findings, NonFiniteError, short_list


def count_units(engine: Engine, micro_batches: Sequence[MicroBatch]) -> dict[Unit, int]:
    """Units in the whole step: over this rank's micro-batches and all ranks."""
    counts = [m.batch.counts() for m in micro_batches if m.real]
    local = torch.tensor([sum(c[unit] for c in counts) for unit in Unit], dtype=torch.int64, device=engine.device)
    return dict(zip(Unit, engine.all_reduce(local).tolist(), strict=True))


def train_step(
    engine: Engine,
    loss: Loss,
    micro_batches: Sequence[MicroBatch],
    step: int,
    stop: bool = False,
    baseline: Sequence[MicroBatch] = (),
    spare: MicroBatch | None = None,
) -> dict:
    """Forward and backward of every micro-batch, one update. Returns the step's metrics, the same on every rank.

        gradient = d/d(weights) sum over components of weight * (sum of values over all micro-batches and ranks) / count

    stop: this rank was asked to stop; the result's "stop" says whether any rank was. baseline: responses to other
    prompts, for a method that needs "kl". spare: a row that does not count; with it a rank whose work does not fit
    keeps the others company (None: with its smallest micro-batch).

    Raises: OutOfMemory on every rank, before the update, where a micro-batch does not fit; gradients are then to be
        discarded. RunError where the others cannot be kept company. NonFiniteError on every rank, before the update,
        where a log-probability, a loss value or the gradient is not finite; gradients are then to be discarded, and
        `seen` has the metrics (under DeepSpeed the gradient's norm is known after the update, which is then never
        saved).
    """
    counts = count_units(engine, micro_batches)
    attempt = Attempt(engine, f"step {step + 1}")
    findings = Findings(engine.device)
    coupling = observe(engine, loss, micro_batches, baseline, attempt, findings)
    tally = Tally()
    weights: dict[str, float] = {}

    def compute(micro_batch: MicroBatch, number: int | None) -> None:
        is_last = number is None or number == len(micro_batches) - 1
        batch = micro_batch.batch.to(engine.device)
        with engine.micro_batch(last=is_last) as backward:
            responses = coupling.inform(respond(engine, batch, loss.needs), number)
            output = terms(loss, responses)
            check_trains(loss, output, counts)
            attempt.is_shared = is_last and engine.world_size > 1
            # Engines average gradients over ranks; the total is already divided by the count over all of them.
            backward(output.total(counts) * (engine.world_size if micro_batch.real else 0))
        attempt.is_shared = False
        tally_batch(tally, responses, output, micro_batch.real)
        if micro_batch.real:
            findings.look(batch, responses, output)
        weights.update((c.name, c.weight) for c in output.components)

    for number, micro_batch in enumerate(micro_batches):
        if attempt.failed is None:
            with attempt.watch(micro_batch):
                compute(micro_batch, number)
    if attempt.failed is not None:
        if engine.world_size == 1:
            raise attempt.give_up()
        spare = spare or min(micro_batches, key=lambda m: m.batch.input_ids.shape[0])._replace(real=False)
        with attempt.watch(spare):
            compute(spare, None)
    tally.add("_nonfinite", findings.count, 0)
    tally.add("_too_large", torch.tensor(float(attempt.failed is not None), device=engine.device), 0)
    tally.add("_stop", torch.tensor(float(stop), device=engine.device), 0)
    tally.add("_tokens", torch.tensor(float(sum(m.batch.input_ids.shape[0] for m in micro_batches if m.real))), 0)
    totals = tally.reduce(engine.all_reduce, engine.device)
    if totals.pop("_too_large")[0]:
        raise attempt.give_up()
    is_bad = totals.pop("_nonfinite")[0] > 0
    stop_asked, tokens = totals.pop("_stop")[0] > 0, totals.pop("_tokens")[0]
    metrics = means(totals, weights)
    if coupling.kl is not None:
        metrics["kl"] = coupling.kl.item()
    seen = {**metrics, "stop": stop_asked, "tokens": tokens, "units": counts}
    if is_bad:
        raise findings.error(f"step {step + 1}", engine.gather, step + 1, seen)
    norm = _update(engine, step)
    if not isfinite(norm):
        raise _of_gradient(engine, micro_batches, step, norm, seen)
    return {**seen, "grad_norm": norm}


def _of_gradient(
    engine: Engine, micro_batches: Sequence[MicroBatch], step: int, norm: float, seen: dict
) -> NonFiniteError:
    """A gradient belongs to all rows of a step: the error names them; every rank must call."""
    mine = [row for m in micro_batches if m.real for row in m.batch.ids]
    rows = sorted({row for ids in engine.gather(mine) for row in ids})
    said = (
        f"the gradient is not finite (its norm is {norm}); it is that of a whole step of {len(rows)} rows"
        f" ({short_list(rows)}), none of which is singled out: a learning rate that is too high does this too"
    )
    return NonFiniteError(f"step {step + 1}", {"gradient": rows}, said, step + 1, seen)


def _update(engine: Engine, step: int) -> float:
    """The engine's step. Raises: RunError where the optimiser's state does not fit."""
    try:
        return engine.step()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            f"step {step + 1}: gradients are there, but the optimiser's state does not fit in memory",
            "model.lora, more processes with deepspeed=zero2, or more memory",
        ) from None
