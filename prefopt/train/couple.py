"""What a loss must know of the whole step before it computes any part of it: one pass without gradients.

A statistic over a micro-batch would change with its size and with the number of ranks. So methods that couple the rows
of a batch (KTO's baseline, AOT's sort, BCO's shift) take theirs over the whole optimiser step and all ranks, or over
the whole set in an evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from prefopt.batch import CoupledLoss, Loss, MicroBatch, Responses, WholeStep
from prefopt.model.forward import respond
from prefopt.train.attempt import Attempt
from prefopt.train.engine import Engine
from prefopt.train.nonfinite import Findings, rows_of

COUPLED = frozenset({"kl", "step"})
"""Needs that this module serves."""


class Coupling:
    """What was seen of the whole step.

    kl: [] or None, see `Responses.kl`. values: [K, m] of all ranks or None. spans: for each micro-batch of this rank,
    where its own values lie.
    """

    def __init__(self, kl: Tensor | None, values: Tensor | None, spans: list[slice]) -> None:
        self.kl = kl
        self._values = values
        self._spans = spans

    def inform(self, responses: Responses, number: int | None) -> Responses:
        """The responses of this rank's micro-batch `number` with what they may know of the others.

        number: None for a row that was not observed, because it does not count.
        """
        own = slice(0, 0) if number is None or self._values is None else self._spans[number]
        whole = None if self._values is None else WholeStep(self._values, own)
        return replace(responses, kl=self.kl, whole_step=whole)


def observe(
    engine: Engine,
    loss: Loss,
    micro_batches: Iterable[MicroBatch],
    baseline: Iterable[MicroBatch],
    attempt: Attempt | None = None,
    findings: Findings | None = None,
) -> Coupling:
    """Look at the whole step without gradients, dropout off; every rank must call.

    micro_batches: this rank's share, as it will be trained on. baseline: its share of responses to other prompts.
    findings: is told of baseline rows whose numbers are not finite; those of the step itself are met again in it.

    Raises: OutOfMemory on every rank where a micro-batch does not fit on one of them.
    """
    if not loss.needs & COUPLED:
        return Coupling(None, None, [])
    attempt = attempt or Attempt(engine, "a pass over the step")
    findings = findings or Findings(engine.device)
    was_training = engine.module.training
    engine.module.eval()
    try:
        with torch.no_grad():
            kl = _mean_logratio(engine, baseline, attempt, findings) if "kl" in loss.needs else None
            if "step" not in loss.needs:
                return Coupling(kl, None, [])
            return Coupling(kl, *_observed(engine, cast(CoupledLoss, loss), micro_batches, attempt))
    finally:
        engine.module.train(was_training)


def _mean_logratio(engine: Engine, baseline: Iterable[MicroBatch], attempt: Attempt, findings: Findings) -> Tensor:
    """[] mean of policy minus reference log-probability over the responses of all ranks."""
    totals = torch.zeros(2, dtype=torch.float64, device=engine.device)
    for responses, micro_batch in _responses(engine, baseline, frozenset(), attempt):
        if micro_batch.real:
            ids = micro_batch.batch.ids
            findings.add(ids, {"kl": rows_of(responses.example, responses.logratios, len(ids))})
            totals += torch.stack((responses.logratios.sum(), torch.ones_like(responses.logratios).sum()))
    attempt.agree()
    total, count = engine.all_reduce(totals)
    return total / count.clamp(min=1)


def _observed(
    engine: Engine, loss: CoupledLoss, micro_batches: Iterable[MicroBatch], attempt: Attempt
) -> tuple[Tensor, list[slice]]:
    """What the loss observes of all ranks, in their order, and where each micro-batch of this rank has its share."""
    parts = [
        (values if micro_batch.real else values[:0])
        for responses, micro_batch in _responses(engine, micro_batches, loss.needs, attempt)
        for values in [loss.observe(responses).detach()]
    ]
    attempt.agree()
    mine = torch.cat(parts)
    everyone = engine.gather(mine.cpu().numpy())
    start = sum(len(values) for values in everyone[: engine.rank])
    spans = []
    for part in parts:
        spans.append(slice(start, start + len(part)))
        start += len(part)
    whole = torch.cat([torch.from_numpy(values) for values in everyone])
    return whole.to(engine.device), spans


def _responses(
    engine: Engine, micro_batches: Iterable[MicroBatch], needs: frozenset[str], attempt: Attempt
) -> Iterator[tuple[Responses, MicroBatch]]:
    """Those of this rank's micro-batches, up to one that does not fit."""
    for micro_batch in micro_batches:
        with attempt.watch(micro_batch):
            responses = respond(engine, micro_batch.batch.to(engine.device), needs)
        if attempt.failed is not None:
            return
        yield responses, micro_batch
