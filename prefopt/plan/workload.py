"""How much a run computes: steps, micro-batches and tokens, cut as the run itself would cut them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefopt.losses import make_loss
from prefopt.plan.activations import Geometry
from prefopt.plan.operations import Amount
from prefopt.plan.rows import Given, Sets, open_sets
from prefopt.plan.shape import Shape
from prefopt.settings import RunSettings, TrainSettings

if TYPE_CHECKING:
    import numpy as np

    from prefopt.data.plan import Plan
    from prefopt.train.rows import Rows

STEPS_LOOKED_AT = 50


@dataclass(frozen=True)
class Workload:
    """A run's work.

    assumed: what is believed of the data and not known. unit: what a step counts. steps, evaluations, saves: how many.
    train: of all rows, once. evaluated: of all held-out rows, once. step: of a mean step. slowest: of the rank that
    has most of it. micro_batches: of a rank in a mean step. heaviest: micro-batches of which one takes most memory.
    extra_passes: forward passes without gradients over a step that a method needs besides. notes: what of the settings
    is more than there is, a sentence each.
    """

    assumed: tuple[str, ...]
    source: str
    unit: str
    steps: int
    evaluations: int
    saves: int
    train: Amount
    evaluated: Amount
    step: Amount
    slowest: Amount
    micro_batches: float
    heaviest: tuple[Geometry, ...]
    longest_row: int
    extra_passes: int
    notes: tuple[str, ...] = ()


def workload(run: RunSettings, shape: Shape, ranks: int, given: Given, *, flex: bool) -> Workload:
    """The work of a run over so many ranks. flex: attention in one call.

    Raises: UserError where nothing is known of the data; as `prepare_data` where they lie on this machine.
    """
    import numpy as np

    from prefopt.data.plan import make_plan, plan_notes
    from prefopt.train.rows import Rows

    needs = make_loss(run.loss).needs
    sets = open_sets(run, needs, given)
    shares = run.model.layout in ("auto", "shared")
    worth = 2 * shape.heads * shape.head_size * shape.layers / shape.base
    rows, *held_out = (Rows(s, needs, shares, worth) for s in (sets.train, *sets.held_out))  # type: ignore[arg-type]
    train = run.train
    plan = make_plan(
        rows.counts,
        rows.data.sources,
        batch_size=train.batch_size,
        epochs=train.epochs,
        max_steps=train.max_steps,
        seed=train.seed,
    )
    looked_at = [plan.steps[s] for s in range(min(len(plan), STEPS_LOOKED_AT))]
    budget = train.tokens_per_micro_batch
    if budget == "auto":
        budget = TrainSettings().tokens_per_micro_batch
    cuts = [rows.cut(step, ranks, budget) for step in looked_at]
    amounts = [_amount(rows, step) for step in looked_at]
    heavy = [
        _amount(
            rows, np.array(max((sum(share, ()) for share in c.micro_batches), key=lambda p: rows.work[list(p)].sum()))
        )
        for c in cuts
    ]
    most = max(
        (list(m) for c in cuts for share in c.micro_batches for m in share if m), key=lambda m: rows.costs[m].sum()
    )
    longest = int(np.argmax(rows.costs))
    every_place = np.arange(len(rows))
    heaviest = [_geometry(rows, np.array(places), flex) for places in (most, [longest])]
    longest_tokens = int(rows.costs[longest])
    assumed = list(sets.assumed)
    if sets.longest is not None:
        row = _longest_assumed(run, sets, flex, shares, "prompt_logps" in needs)
        if row.tokens > heaviest[0].tokens:
            heaviest = [row]
            assumed.append(
                f"memory is that of the longest row that data.max_length={run.data.max_length} allows,"
                f" {row.tokens:,} tokens in a micro-batch of its own"
            )
        longest_tokens = row.tokens
    return Workload(
        assumed=tuple(assumed),
        source=sets.source,
        unit=rows.unit,
        steps=len(plan),
        evaluations=_evaluations(run, plan) if held_out else 0,
        saves=_times(train.save_every, plan) if train.save_every != "never" else 1,
        train=_amount(rows, every_place),
        evaluated=_sum([_amount(r, np.arange(len(r))) for r in held_out]),
        step=_mean(amounts),
        slowest=_mean(heavy),
        micro_batches=float(np.mean([c.num_micro_batches for c in cuts])),
        heaviest=tuple(heaviest),
        longest_row=longest_tokens,
        extra_passes=len(needs & {"kl", "step"}) + (1 if needs & {"forward_kl", "reverse_kl"} else 0),
        notes=tuple(plan_notes(plan, rows.counts, rows.data.sources, train, rows.unit)),
    )


def _longest_assumed(run: RunSettings, sets: Sets, flex: bool, shares: bool, prompt_logps: bool) -> Geometry:
    """Of a row of a usual prompt whose responses are as long as they may be."""
    from prefopt.plan.activations import geometry

    prompt = int(sets.train.prompt_lengths[0])
    count = int(sets.train.response_offsets[1])
    responses = [run.data.max_length - prompt] * count
    return geometry(prompt, responses, shared=shares, flex=flex, prompt_logps=prompt_logps)


def _amount(rows: Rows, places: np.ndarray) -> Amount:
    import numpy as np

    data = rows.data
    lengths = np.concatenate(([0], np.cumsum(data.response_lengths)))
    offsets = data.response_offsets
    predicted = 0 if rows.whole_responses else int((lengths[offsets[places + 1]] - lengths[offsets[places]]).sum())
    if rows.prompt_logps:
        predicted += int((data.prompt_lengths[places] - 1).sum())
    return Amount(
        rows=len(places),
        tokens=int(rows.costs[places].sum()),
        entries=int(rows.entries[places].sum()),
        predicted=predicted,
        responses=int(np.diff(offsets)[places].sum()),
        units=int(rows.counts[places].sum()),
    )


def _geometry(rows: Rows, places: np.ndarray, flex: bool) -> Geometry:
    from prefopt.plan.activations import geometry

    data, offsets = rows.data, rows.data.response_offsets
    parts = [
        geometry(
            int(data.prompt_lengths[p]),
            data.response_lengths[offsets[p] : offsets[p + 1]].tolist(),
            shared=rows.share_prompts,
            flex=flex,
            prompt_logps=rows.prompt_logps,
        )
        for p in places
    ]
    return sum(parts[1:], parts[0])


def _sum(parts: list[Amount]) -> Amount:
    return Amount(*(sum(values) for values in zip(*map(_values, parts)))) if parts else Amount(0, 0, 0, 0, 0, 0)


def _mean(parts: list[Amount]) -> Amount:
    return Amount(*(round(value / len(parts)) for value in _values(_sum(parts))))


def _values(amount: Amount) -> tuple[int, ...]:
    return amount.rows, amount.tokens, amount.entries, amount.predicted, amount.responses, amount.units


def _evaluations(run: RunSettings, plan: Plan) -> int:
    """Before step 1, whenever it is due, and at the end."""
    return 0 if run.train.eval_every == "never" else 1 + _times(run.train.eval_every, plan)


def _times(every: str | int, plan: Plan) -> int:
    if every == "epoch":
        return len(plan.epoch_ends)
    if every == "never":
        return 1
    return len(plan) // int(every) + (len(plan) % int(every) > 0)
