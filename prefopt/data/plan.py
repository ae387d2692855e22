"""Who sees what when: which examples make each optimiser step, and how a step is cut into micro-batches and ranks.

A plan is a pure function of the data's lengths, the settings and a seed: step s is the same on every machine and in
every resumed run, so that the position in the data is nothing but the number of steps done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from prefopt.data.partition import best_fit, deal, largest_differencing, longest_first, longest_first_with_room
from prefopt.errors import UserError
from prefopt.settings import TrainSettings


@dataclass(frozen=True)
class Cut:
    """One step's examples, cut.

    micro_batches: [rank][micro-batch] -> places in the data set; every rank has the same number of micro-batches, and
    one that has nothing left is given an empty list: it repeats some work with weight zero, so that no rank waits.
    """

    micro_batches: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def num_micro_batches(self) -> int:
        return len(self.micro_batches[0])


@dataclass(frozen=True)
class Plan:
    """Steps of a whole run.

    steps: for each step the places of its examples in the data set, in order of drawing.
    epoch_ends: as numbers of steps done: epoch k ends after epoch_ends[k] steps.
    """

    steps: tuple[np.ndarray, ...]
    epoch_ends: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.steps)

    def sizes(self, counts: np.ndarray) -> list[int]:
        """How much each step holds, in the unit of batch_size. counts [E]: as `make_plan` has them."""
        return [int(counts[places].sum()) for places in self.steps]

    def epoch(self, step: int) -> float:
        """Epochs done after `step` steps: whole at the ends of epochs, linear between."""
        start = 0
        for number, end in enumerate(self.epoch_ends):
            if step <= end:
                return number + (step - start) / max(1, end - start)
            start = end
        return float(len(self.epoch_ends))

    def is_due(self, every: str | int, step: int) -> bool:
        """Whether "epoch", "never" or every n steps falls on `step` steps done."""
        if every == "epoch":
            return step in self.epoch_ends
        return every != "never" and step % int(every) == 0


def make_plan(
    counts: np.ndarray,
    sources: Sequence[tuple[int, int, float]],
    *,
    batch_size: int,
    epochs: float,
    max_steps: int | None,
    seed: int,
) -> Plan:
    """The plan of a run.

    counts [E]: how much of `batch_size` each example fills, 1 for a pair.
    sources: (start, count, weight) of each source's rows; weight is how often a row is seen in an epoch, and the
    fraction of it is drawn anew each epoch. batch_size: pairs (or single responses) per optimiser step.

    Examples are drawn without replacement within an epoch, shuffled by (seed, epoch). A step is full when the next
    example would exceed `batch_size`; an epoch's last step may be smaller and is divided by what it really holds.

    Raises: UserError where an example alone exceeds batch_size.
    """
    if len(counts) and counts.max() > batch_size:
        raise UserError(
            f"train.batch_size={batch_size} cannot be reached: one prompt alone has {int(counts.max())} pairs"
            " (or labelled responses)",
            "raise train.batch_size, or take data.pairs=best_vs_worst",
        )
    steps: list[np.ndarray] = []
    ends: list[int] = []
    for epoch in range(ceil(epochs)):
        drawn = _steps_of_epoch(_draw(sources, seed, epoch), counts, batch_size)
        share = min(1.0, epochs - epoch)
        steps += drawn[: ceil(len(drawn) * share)]
        ends.append(len(steps))
        if max_steps is not None and len(steps) >= max_steps:
            steps = steps[:max_steps]
            ends[-1] = max(len(steps), 1)
            break
    return Plan(tuple(steps), tuple(ends))


def plan_notes(
    plan: Plan, counts: np.ndarray, sources: Sequence[tuple[int, int, float]], train: TrainSettings, unit: str
) -> list[str]:
    """A sentence for each of train.batch_size and train.max_steps that is more than there is.

    unit: what `counts` and train.batch_size count, in the plural. The rest as `make_plan` has it.
    """
    most, last = train.max_steps, len(plan)
    notes = [too_few(plan, counts, sources, train.batch_size, unit)]
    if most is not None and last < most:
        notes.append(f"train.max_steps={most} is not reached: train.epochs={train.epochs:g} ends after step {last}")
    return [note for note in notes if note]


def too_few(
    plan: Plan, counts: np.ndarray, sources: Sequence[tuple[int, int, float]], batch_size: int, unit: str
) -> str:
    """A sentence where an epoch does not fill one step, which then is smaller than batch_size; "" where it does.

    unit: what `counts` and batch_size count, in the plural. The rest as `make_plan` has it.
    """
    sizes = plan.sizes(counts)
    # Whole epochs only: the first step of many may fall short of batch_size too, where prompts have several pairs.
    drawn = sum(int(weight) * count + round((weight - int(weight)) * count) for _, count, weight in sources)
    if not sizes or len(plan.steps[0]) < drawn or sizes[0] >= batch_size:
        return ""
    small = f"{sizes[0]} {unit}"
    return f"train.batch_size={batch_size} is more than the {small}: every step takes all of them, one step an epoch"


def _draw(sources: Sequence[tuple[int, int, float]], seed: int, epoch: int) -> np.ndarray:
    """The places of one epoch, shuffled. Philox gives the same stream on every platform."""
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    parts = []
    for start, count, weight in sources:
        rows = np.arange(start, start + count)
        whole = int(weight)
        extra = random.permutation(rows)[: round((weight - whole) * count)]
        parts += [rows] * whole + [np.sort(extra)]
    return random.permutation(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)


def _steps_of_epoch(order: np.ndarray, counts: np.ndarray, batch_size: int) -> list[np.ndarray]:
    filled = np.concatenate(([0], np.cumsum(counts[order])))
    steps, start = [], 0
    while start < len(order):
        # As many as fit, and one where none does.
        end = int(np.searchsorted(filled, filled[start] + batch_size, side="right")) - 1
        steps.append(order[start : max(end, start + 1)])
        start = max(end, start + 1)
    return steps


def cut(
    examples: np.ndarray,
    tokens: np.ndarray,
    num_ranks: int,
    tokens_per_micro_batch: int,
    work: np.ndarray | None = None,
) -> Cut:
    """Cut one step into micro-batches of nearly equal work that fit the token budget, and deal them to ranks.

    tokens [E]: what each example of the data set takes of the budget. work [E]: what it costs to compute, in whole
    numbers of any unit; None: its tokens.

    The number of micro-batches is the smallest multiple of `num_ranks` for which a cut within the budget is found; an
    example longer than the budget has a micro-batch of its own.
    """
    places = np.sort(examples)
    sizes: list[int] = tokens[places].tolist()
    works: list[int] = sizes if work is None else work[places].tolist()
    alone = [[p] for p, size in enumerate(sizes) if size > tokens_per_micro_batch]
    others = [p for p, size in enumerate(sizes) if size <= tokens_per_micro_batch]
    own_sizes, own_works = [sizes[p] for p in others], [works[p] for p in others]
    shared = _bins(own_sizes, own_works, tokens_per_micro_batch, len(alone), num_ranks)
    bins = alone + [[others[p] for p in members] for members in shared]
    names: list[int] = places.tolist()
    shares = deal(bins, works, num_ranks)
    return Cut(tuple(tuple(tuple(names[p] for p in members) for members in rank) for rank in shares))


def _bins(sizes: list[int], works: list[int], budget: int, num_others: int, num_ranks: int) -> list[list[int]]:
    """Places in bins that hold `budget` each, of as equal work as is found.

    Their number and `num_others` are a multiple of `num_ranks`, at least one of each rank.
    """

    def whole(num_bins: int) -> int:
        """The least number of bins from `num_bins` on that gives every rank as many."""
        return max(1, ceil((num_others + num_bins) / num_ranks)) * num_ranks - num_others

    least = whole(ceil(sum(sizes) / budget))
    if (bins := _balanced(sizes, works, budget, least)) is not None:
        return bins
    packed = best_fit(sizes, budget)
    known, most = least, whole(len(packed))  # `known` bins are too few, `most` are enough
    while most - known > num_ranks:
        middle = known + (most - known) // num_ranks // 2 * num_ranks
        if longest_first_with_room(works, sizes, budget, middle) is None:
            known = middle
        else:
            most = middle
    bins = _balanced(sizes, works, budget, most)
    return packed + [[] for _ in range(most - len(packed))] if bins is None else bins


def _balanced(sizes: list[int], works: list[int], budget: int, num_bins: int) -> list[list[int]] | None:
    """Places in exactly `num_bins` bins that hold `budget` each, of as equal work as is found; None where none is."""
    if not sizes or not num_bins:
        return None if sizes else [[] for _ in range(num_bins)]

    def heaviest(bins: list[list[int]], of: list[int]) -> int:
        return max(sum(of[p] for p in members) for members in bins)

    for of in (works, sizes):  # where the budget is tight, equal tokens come before equal work
        found = [largest_differencing(of, num_bins), longest_first(of, num_bins)]
        within = [bins for bins in found if heaviest(bins, sizes) <= budget]
        if within:
            return min(within, key=lambda bins: heaviest(bins, works))
    return longest_first_with_room(works, sizes, budget, num_bins)
