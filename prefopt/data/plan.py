"""Who sees what when: which examples make each optimiser step, and how a step is cut into micro-batches and ranks.

A plan is a pure function of the data's lengths, the settings and a seed: step s is the same on every machine and in
every resumed run, so that the position in the data is nothing but the number of steps done.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from prefopt.errors import UserError


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
    steps_per_epoch: ends of epochs, as numbers of steps done: epoch k ends after epoch_ends[k] steps.
    """

    steps: tuple[np.ndarray, ...]
    epoch_ends: tuple[int, ...]
    costs: np.ndarray
    num_ranks: int
    tokens_per_micro_batch: int

    def __len__(self) -> int:
        return len(self.steps)

    def cut(self, step: int) -> Cut:
        """How step number `step` (from 0) is dealt."""
        return cut(self.steps[step], self.costs, self.num_ranks, self.tokens_per_micro_batch)

    def epoch(self, step: int) -> float:
        """Epochs done after `step` steps: whole at the ends of epochs, linear between."""
        start = 0
        for number, end in enumerate(self.epoch_ends):
            if step <= end:
                return number + (step - start) / max(1, end - start)
            start = end
        return float(len(self.epoch_ends))


def make_plan(
    costs: np.ndarray,
    counts: np.ndarray,
    sources: Sequence[tuple[int, int, float]],
    *,
    batch_size: int,
    epochs: float,
    max_steps: int | None,
    seed: int,
    num_ranks: int,
    tokens_per_micro_batch: int,
) -> Plan:
    """The plan of a run.

    costs [E]: tokens each example takes on the axis. counts [E]: how much of `batch_size` each one fills, 1 for a pair.
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
    return Plan(tuple(steps), tuple(ends), costs, num_ranks, tokens_per_micro_batch)


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
    steps: list[np.ndarray] = []
    start, filled = 0, 0
    for place, count in enumerate(counts[order]):
        if filled and filled + count > batch_size:
            steps.append(order[start:place])
            start, filled = place, 0
        filled += int(count)
    if start < len(order):
        steps.append(order[start:])
    return steps


def cut(examples: np.ndarray, costs: np.ndarray, num_ranks: int, tokens_per_micro_batch: int) -> Cut:
    """Cut one step into micro-batches of nearly equal cost that fit the token budget, and deal them to ranks.

    The number of micro-batches is the smallest multiple of `num_ranks` for which longest-first placement into the
    lightest bin stays within the budget; an example longer than the budget has a micro-batch of its own.
    """
    by_cost = sorted((int(e) for e in examples), key=lambda e: (-int(costs[e]), e))
    budget = max(tokens_per_micro_batch, int(costs[by_cost[0]]))
    per_rank = max(1, ceil(sum(int(costs[e]) for e in by_cost) / (budget * num_ranks)))
    while True:
        bins, heaviest = _place(by_cost, costs, per_rank * num_ranks)
        if heaviest <= budget or per_rank * num_ranks >= len(by_cost):
            break
        per_rank += 1
    # Heaviest bins first, dealt round-robin: micro-batch m of every rank costs about the same.
    bins.sort(key=lambda b: -sum(int(costs[e]) for e in b))
    return Cut(tuple(tuple(tuple(b) for b in bins[rank::num_ranks]) for rank in range(num_ranks)))


def _place(by_cost: list[int], costs: np.ndarray, num_bins: int) -> tuple[list[list[int]], int]:
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    loads = [(0, number) for number in range(num_bins)]
    for example in by_cost:
        load, number = heapq.heappop(loads)
        bins[number].append(example)
        heapq.heappush(loads, (load + int(costs[example]), number))
    return bins, max(load for load, _ in loads)
