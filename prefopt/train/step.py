"""One optimiser step, the same gradient however the work was cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from prefopt.batch import Loss, LossOutput, MicroBatch, Responses, Unit
from prefopt.errors import RunError
from prefopt.model.forward import respond
from prefopt.train.attempt import Attempt
from prefopt.train.couple import observe
from prefopt.train.engine import Engine
from prefopt.train.memory import is_out_of_memory
from prefopt.train.metrics import Tally, means, nonfinite, nonfinite_rows, tally_batch


class NonFiniteError(RunError):
    """A number that is not finite. rows: the data rows it was seen in."""

    def __init__(self, message: str, rows: list[str]) -> None:
        super().__init__(message, "nothing of this step was saved; nonfinite.json in the run folder lists the rows")
        self.rows = rows


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
        where a log-probability, a loss value or the gradient is not finite (under DeepSpeed the gradient's norm is
        known after the update, which is then never saved).
    """
    counts = count_units(engine, micro_batches)
    attempt = Attempt(engine, f"step {step + 1}")
    coupling = observe(engine, loss, micro_batches, baseline, attempt)
    tally = Tally()
    outputs: list[tuple[MicroBatch, Responses, LossOutput]] = []
    bad = torch.zeros((), dtype=torch.int64, device=engine.device)

    def compute(micro_batch: MicroBatch, number: int | None) -> None:
        nonlocal bad
        is_last = number is None or number == len(micro_batches) - 1
        batch = micro_batch.batch.to(engine.device)
        with engine.micro_batch(last=is_last) as backward:
            responses = coupling.inform(respond(engine, batch, loss.needs), number)
            output = loss(responses)
            attempt.is_shared = is_last and engine.world_size > 1
            # Engines average gradients over ranks; the total is already divided by the count over all of them.
            backward(output.total(counts) * (engine.world_size if micro_batch.real else 0))
        attempt.is_shared = False
        tally_batch(tally, responses, output, micro_batch.real)
        bad = bad + nonfinite(responses, output) * int(micro_batch.real)
        outputs.append((micro_batch, *_detached(responses, output)))

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
    tally.add("_nonfinite", bad, 0)
    tally.add("_too_large", torch.tensor(float(attempt.failed is not None), device=engine.device), 0)
    tally.add("_stop", torch.tensor(float(stop), device=engine.device), 0)
    tally.add("_tokens", torch.tensor(float(sum(m.batch.input_ids.shape[0] for m in micro_batches if m.real))), 0)
    totals = tally.reduce(engine.all_reduce, engine.device)
    if totals.pop("_too_large")[0]:
        raise attempt.give_up()
    if totals.pop("_nonfinite")[0]:
        raise _name_rows(engine, outputs, step)
    stop_asked, tokens = totals.pop("_stop")[0] > 0, totals.pop("_tokens")[0]
    norm = _update(engine, step)
    if not torch.isfinite(torch.tensor(norm)):
        mine = [row for m in micro_batches for row in m.batch.ids]
        rows = sorted({row for ids in engine.gather(mine) for row in ids})
        raise NonFiniteError(
            f"step {step + 1}: the norm of the gradient is {norm}; the step had {len(rows)} rows", rows
        )
    metrics = means(totals, {c.name: c.weight for c in outputs[0][2].components})
    if coupling.kl is not None:
        metrics["kl"] = coupling.kl.item()
    return {**metrics, "grad_norm": norm, "stop": stop_asked, "tokens": tokens, "units": counts}


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


def _detached(responses: Responses, output: LossOutput) -> tuple[Responses, LossOutput]:
    """What is needed to name rows, without the graph that hangs on it."""
    kept = replace(
        responses,
        token_logps=responses.token_logps.detach(),
        logps=responses.logps.detach(),
        rewards=None if responses.rewards is None else responses.rewards.detach(),
        prompt_logps=None,
        forward_kl=None,
        reverse_kl=None,
        collision=None,
    )
    components = tuple(c._replace(values=c.values.detach()) for c in output.components)
    return kept, LossOutput(components, output.rewards)


def _name_rows(engine: Engine, outputs: list[tuple[MicroBatch, Responses, LossOutput]], step: int) -> NonFiniteError:
    """Every rank says which of its rows are not finite; all raise the same error."""
    found: dict[str, set[str]] = {}
    for micro_batch, responses, output in outputs:
        if micro_batch.real:
            for tensor, places in nonfinite_rows(responses, output).items():
                found.setdefault(tensor, set()).update(micro_batch.batch.ids[p] for p in places)
    merged: dict[str, set[str]] = {}
    for part in engine.gather(found):
        for tensor, ids in part.items():
            merged.setdefault(tensor, set()).update(ids)
    rows = sorted(set().union(*merged.values()))
    named = ", ".join(rows[:5]) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
    return NonFiniteError(f"step {step + 1}: {' and '.join(sorted(merged))} not finite in {named}", rows)
