"""Before the first update a policy is its own reference: looked at once, in the mode in which it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from prefopt.batch import Batch, Loss, Responses, Unit
from prefopt.errors import RunError
from prefopt.model.forward import respond
from prefopt.needs import LIVE
from prefopt.train.attempt import Attempt
from prefopt.train.budget import TokenBudget
from prefopt.train.column_check import FLOAT32, allowed, of_one_token
from prefopt.train.couple import COUPLED
from prefopt.train.engine import Engine
from prefopt.train.fitted import RandomState, fitted
from prefopt.train.loader import Loader, StepWork
from prefopt.train.reference import names_another_reference
from prefopt.train.step import count_units

LOSS_FLOAT32 = 1e-4
"""How far the loss may lie from what it is at its own reference, in float32; more in bfloat16, as `column_check` says.
A loss above 1 may lie apart by as much of its size."""

CAUSES = (
    "likely causes: dropout that is on, weights that are not those of the reference, another precision, or a column of"
    " the cache (data.cache_dir) that another model made: remove it, and its rows are scored anew"
)


class Doubt(NamedTuple):
    """Two numbers of one response that ought to be the same, ordered by how much of what is allowed they are apart."""

    share: float
    apart: float
    what: str
    found: float
    expected: float
    most: float


class Agreement(NamedTuple):
    """worst: what is furthest beyond what is allowed, or nearest to it. apart: the largest difference, nats.

    responses: how many were looked at. losses: the step's loss, and the one with the policy's own numbers for the
    reference; None for a method whose loss needs the whole step.
    """

    worst: Doubt
    apart: float
    responses: int
    losses: tuple[float, float] | None


def check_start(engine: Engine, loss: Loss, loader: Loader, budget: TokenBudget, say: Callable[[str], None]) -> None:
    """Compare the policy with its reference over the first step's rows, where the reference is the start of the run.

    One forward pass of one step, without gradients and in training mode, as the step itself will run; random states are
    put back. Each response's log-probability must be the reference's but for rounding (`column_check.allowed`), its
    divergence from a live reference 0, and the loss what it is with the policy's own numbers for the reference: ln 2
    for DPO. Every rank must call, before the first update.

    Raises: RunError on every rank, naming the row and both numbers.
    """
    if not loss.needs & ({"reference"} | LIVE) or names_another_reference(engine.run):
        return
    random = RandomState(engine.device)
    found, _ = fitted(engine, loader, budget, 0, say, lambda work: _look(engine, loss, work))
    random.restore()
    loader.seconds_waited()  # which is no step's
    _judge(engine, found)
    say(f"step 0: policy and reference agree to {found.apart:.0e} nats over {found.responses} responses")


def _judge(engine: Engine, found: Agreement) -> None:
    worst = found.worst
    both = f"{worst.what} is {worst.found:.6g} and not {worst.expected:.6g}"
    if not worst.share <= 1:
        raise RunError(
            f"step 0: policy and reference are the same model, but {both} ({worst.apart:.3g} apart, {worst.most:.3g}"
            " allowed)",
            CAUSES,
        )
    if found.losses is None:
        return
    stepped, own = found.losses
    most = LOSS_FLOAT32 * of_one_token(engine.run) / FLOAT32 * max(1.0, abs(own))
    if not abs(stepped - own) <= most:
        raise RunError(
            f"step 0: policy and reference are the same model, but the loss is {stepped:.6g} and not {own:.6g};"
            f" furthest apart: {both}",
            f"{CAUSES}; or settings of the loss under which rounding decides",
        )


def _look(engine: Engine, loss: Loss, work: StepWork) -> Agreement:
    """This step's rows once, over all ranks."""
    counts = count_units(engine, work.micro_batches)
    attempt = Attempt(engine, "the check before step 1")
    doubts: list[Doubt] = []
    totals = torch.zeros(2, dtype=torch.float64, device=engine.device)
    with torch.no_grad():
        for micro_batch in work.micro_batches:
            if attempt.failed is not None:
                break
            with attempt.watch(micro_batch):
                batch = micro_batch.batch.to(engine.device)
                responses = respond(engine, batch, loss.needs)
                if micro_batch.real:
                    doubts += _doubts(engine, batch, responses)
                    totals += _losses(loss, responses, counts)
    attempt.agree()
    everyone = [doubt for part in engine.gather(doubts) for doubt in part]
    totals = engine.all_reduce(totals)
    losses = None if loss.needs & COUPLED else (totals[0].item(), totals[1].item())
    return Agreement(max(everyone), max(d.apart for d in everyone), counts[Unit.RESPONSE], losses)


def _doubts(engine: Engine, batch: Batch, responses: Responses) -> Iterator[Doubt]:
    """Every response of a micro-batch."""
    assert responses.reference_logps is not None, "the method must list 'reference' among its needs"
    pairs = {"the log-probability of": (responses.logps, responses.reference_logps)}
    for name, values in (("forward", responses.forward_kl), ("reverse", responses.reverse_kl)):
        if values is not None:
            sums = responses.summed(values)
            pairs[f"the {name} KL of"] = (sums, torch.zeros_like(sums))
    lengths, example = responses.lengths.tolist(), responses.example.tolist()
    for name, (found, expected) in pairs.items():
        for place, (a, b) in enumerate(zip(found.tolist(), expected.tolist(), strict=True)):
            own = place - example.index(example[place])
            most = allowed(engine.run, lengths[place], b)
            share = abs(a - b) / most
            what = f"{name} {batch.ids[example[place]]} (response {own + 1})"
            yield Doubt(share if share == share else float("inf"), abs(a - b), what, a, b, most)


def _losses(loss: Loss, responses: Responses, counts: dict[Unit, int]) -> torch.Tensor:
    """[2] a micro-batch's part of the step's loss, and of the loss with the policy's own numbers for the reference."""
    if loss.needs & COUPLED:
        return torch.zeros(2, dtype=torch.float64, device=responses.logps.device)
    forward, reverse = responses.forward_kl, responses.reverse_kl
    own = replace(
        responses,
        reference_logps=responses.logps,
        reference_token_logps=None if responses.reference_token_logps is None else responses.token_logps.double(),
        forward_kl=None if forward is None else torch.zeros_like(forward),
        reverse_kl=None if reverse is None else torch.zeros_like(reverse),
    )
    return torch.stack([loss(seen).total(counts).double() for seen in (responses, own)])
