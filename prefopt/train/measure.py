"""`train.tokens_per_micro_batch: auto`: the largest budget that fits, found by trying."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import numpy as np
import torch

from prefopt.batch import CoupledLoss, Loss
from prefopt.data.plan import Plan, cut
from prefopt.errors import RunError
from prefopt.losses.terms import terms
from prefopt.model.forward import respond
from prefopt.train.couple import Coupling
from prefopt.train.engine import Engine
from prefopt.train.fitted import RandomState
from prefopt.train.memory import forget_peak, is_out_of_memory, peak, room
from prefopt.train.rows import Rows

SHARE = 0.85
"""Of the memory there is: the rest is for fragments, for other processes and for what grows during a run."""
ROUND = 64
"""Tokens that a measured budget is a multiple of."""


class Trial(NamedTuple):
    """tokens: of the micro-batch. peak: bytes at most on the rank that took most. fits: on every rank."""

    tokens: int
    peak: int
    fits: bool


def measure_budget(engine: Engine, loss: Loss, rows: Rows, plan: Plan, say: Callable[[str], None]) -> int:
    """Tokens per micro-batch that take `SHARE` of the memory, at most those of the largest share of a step.

    Real rows go forward and backward in micro-batches that double in size, the longest rows first, until the next one
    would not fit; what lies beyond is told by the line through the last two. Gradients lie in memory meanwhile, and
    room for the optimiser's state is kept. Weights, optimiser and random states are left as they were.

    Call before columns are attached (numbers that stand in for them take as much memory), with a live reference in
    place; every rank must call. Not under DeepSpeed.

    Raises: RunError where the longest row does not fit by itself.
    """
    most_useful = largest_share(plan, rows, engine.world_size)
    with _nothing_changes(engine):
        rows = _with_stand_ins(engine, loss.needs, rows)
        order = np.argsort(-rows.costs, kind="stable")
        if engine.policy.layout == "padded":  # the worst that padding can do: the longest row beside the shortest
            order = np.concatenate((order[:1], order[:0:-1]))
        limits = engine.gather(_limit(engine))
        trials = _trials(engine, loss, rows, order, most_useful, min(limits))
    fitting = [trial for trial in trials if trial.fits]
    longest = int(rows.costs.max())
    if not fitting or fitting[-1].tokens < min(longest, most_useful):
        name = rows[int(order[0])].id
        raise RunError(
            f"{name} of {longest} tokens does not fit by itself in the {_gib(min(limits))} there are",
            "a smaller data.max_length, model.checkpoint_every=1, model.lora, or more memory",
        )
    found = _largest(trials, min(limits), most_useful)
    say(
        f"train.tokens_per_micro_batch: {found}, measured with up to {fitting[-1].tokens} tokens:"
        f" {_gib(fitting[-1].peak)} of {_gib(min(limits))} ({SHARE:.0%} of what there is)"
        + ("; one micro-batch then holds a rank's share of any step" if found == most_useful else "")
    )
    return found


def largest_share(plan: Plan, rows: Rows, num_ranks: int) -> int:
    """Tokens of the heaviest micro-batch of any step where each rank has one: a larger budget changes nothing."""
    totals = np.array([rows.costs[step].sum() for step in plan.steps])
    found = 0
    for number in np.argsort(-totals, kind="stable"):
        longest = int(rows.costs[plan.steps[number]].max())
        if totals[number] / num_ranks + longest <= found:
            break
        (*shares,) = cut(plan.steps[number], rows.costs, num_ranks, int(totals[number])).micro_batches
        found = max(found, *(int(rows.costs[list(members)].sum()) for share in shares for members in share))
    return found


def _limit(engine: Engine) -> int:
    """Bytes that a micro-batch may bring this process to."""
    trainable = [p for p in engine.policy.parameters() if p.requires_grad]
    kept = engine.optimizer.state_dict()["state"].values()
    state = [v for entry in kept for v in entry.values() if isinstance(v, torch.Tensor)]
    # No optimiser here keeps more than two float32 numbers for a weight; they are made in the first step.
    missing = 8 * sum(p.numel() for p in trainable) - sum(v.nbytes for v in state)
    most = room(engine.device, num_sharing=engine.world_size)
    engine.barrier()  # all have looked before any of them takes more
    return int(SHARE * most) - max(0, missing)


def _trials(engine: Engine, loss: Loss, rows: Rows, order: np.ndarray, most_useful: int, limit: int) -> list[Trial]:
    """Micro-batches of doubling size, up to the first that does not fit or would not by the line through the last."""
    target, longest = int(rows.costs.min()), int(rows.costs.max())
    _try(engine, loss, rows, order, target)  # loads what is loaded once, and leaves gradients in place
    trials: list[Trial] = []
    while True:
        trial = _try(engine, loss, rows, order, target)
        if trials and trial.tokens == trials[-1].tokens:
            trials.pop()
        trials.append(trial)
        following = min(2 * target, most_useful)
        if target < longest < following:
            following = longest
        if not trial.fits or trial.peak > limit or target >= most_useful:
            break
        if len(trials) > 1 and _predicted(trials, following) > limit:
            break
        target = following
    return [t._replace(fits=t.fits and t.peak <= limit) for t in trials]


def _predicted(trials: list[Trial], tokens: int) -> float:
    """Bytes, by the line through the last two trials."""
    before, last = trials[-2:]
    slope = max(0.0, (last.peak - before.peak) / (last.tokens - before.tokens))
    return last.peak + slope * (tokens - last.tokens)


def _largest(trials: list[Trial], limit: int, most_useful: int) -> int:
    """The budget that the trials speak for."""
    fitting = [trial for trial in trials if trial.fits]
    last = fitting[-1]
    beyond = trials[len(fitting)].tokens - 1 if len(trials) > len(fitting) else 2 * last.tokens
    beyond = min(beyond, most_useful)
    if len(fitting) > 1 and _predicted(fitting, beyond) > limit:
        before = fitting[-2]
        slope = (last.peak - before.peak) / (last.tokens - before.tokens)
        beyond = last.tokens + int((limit - last.peak) / slope)
    elif len(fitting) == 1 and beyond != most_useful:
        beyond = last.tokens
    return beyond if beyond == most_useful else max(beyond // ROUND * ROUND, last.tokens)


def _try(engine: Engine, loss: Loss, rows: Rows, order: np.ndarray, target: int) -> Trial:
    """One micro-batch of at most `target` tokens (of one row at least), forward and backward, on every rank."""
    places: list[int] = []
    tokens = 0
    for place in order[rows.costs[order] <= max(target, int(rows.costs.min()))]:
        if not places or tokens + rows.costs[place] <= target:
            places.append(int(place))
            tokens += int(rows.costs[place])
        if target - tokens < rows.costs.min():
            break
    forget_peak(engine.device)
    fits = True
    try:
        _forward_backward(engine, loss, rows, places)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    found = engine.gather((peak(engine.device), fits))
    return Trial(tokens, max(most for most, _ in found), all(did for _, did in found))


def _forward_backward(engine: Engine, loss: Loss, rows: Rows, places: list[int]) -> None:
    """What a step does with a micro-batch, without an exchange between ranks."""
    batch = rows.pack(places).to(engine.device)
    with engine.micro_batch(last=False) as backward:
        responses = respond(engine, batch, loss.needs)
        kl = torch.zeros((), dtype=torch.float64, device=engine.device) if "kl" in loss.needs else None
        observed = cast(CoupledLoss, loss).observe(responses).detach() if "step" in loss.needs else None
        spans = [] if observed is None else [slice(0, len(observed))]
        output = terms(loss, Coupling(kl, observed, spans).inform(responses, 0))
        backward(output.total(batch.counts()))


def _with_stand_ins(engine: Engine, needs: frozenset[str], rows: Rows) -> Rows:
    """The same rows with zeros for the columns that are not there yet."""
    rows = copy.copy(rows)
    if "reference" in needs:
        rows.set_reference(np.zeros(rows.num_responses))
    if "reference_tokens" in needs:
        rows.set_reference_tokens(np.zeros(int(rows.token_offsets[-1])))
    wanted = engine.run.data.margins
    if "margins" in needs and any(margin.kind != "column" for margin in wanted):
        rows.set_margins(np.zeros((rows.num_responses, len(wanted))))
    return rows


@contextmanager
def _nothing_changes(engine: Engine) -> Iterator[None]:
    random = RandomState(engine.device)
    try:
        yield
    finally:
        engine.discard_gradients()
        random.restore()


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
