"""Sets of nearly equal sums: how rows are put together so that nobody waits long for anybody.

Work is in whole numbers, so that sums are the same in whatever order they are taken and ties are broken alike on every
machine.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Sequence

ID_BITS = 32
"""A subset is one integer, its sum above its number: sorting integers is what Python does fastest."""


def largest_differencing(work: Sequence[int], num_bins: int) -> list[list[int]]:
    """Places 0..n-1 in `num_bins` bins of nearly equal work, by the largest differencing method (Karmarkar and Karp).

    Every place starts as a partition of its own: its work in one bin, nothing in the others. The two partitions whose
    heaviest and lightest bins differ most are put together, heaviest with lightest, until one is left. Bins of nothing
    are not stored, so that most of the n merges insert one number into a sorted list.
    """
    if len(work) <= num_bins:
        return [*([place] for place in range(len(work))), *([] for _ in range(num_bins - len(work)))]
    joined: list[tuple[int, int]] = []  # for subset number n + i: the two it was made of
    # (minus the difference, number of the partition, its subsets from light to heavy)
    heap = [(-value, place, [value << ID_BITS | place]) for place, value in enumerate(work)]
    heapq.heapify(heap)
    low = (1 << ID_BITS) - 1
    number = next_subset = len(work)
    while len(heap) > 1:
        _, _, one = heapq.heappop(heap)
        _, _, other = heap[0]
        both = len(one) + len(other) - num_bins
        if both <= 0:  # there is room for every subset in a bin of its own
            merged = one + other
        else:
            # The lightest bins of each that are not empty in the other: lightest of one with heaviest of the other.
            merged = one[both:] + other[both:]
            for a, b in zip(one[:both], reversed(other[:both])):
                joined.append((a & low, b & low))
                merged.append((a >> ID_BITS) + (b >> ID_BITS) << ID_BITS | next_subset)
                next_subset += 1
        merged.sort()
        lightest = merged[0] >> ID_BITS if len(merged) == num_bins else 0
        heapq.heapreplace(heap, (lightest - (merged[-1] >> ID_BITS), number, merged))
        number += 1
    bins = [_members(subset & low, joined, len(work)) for subset in heap[0][2]]
    return bins + [[] for _ in range(num_bins - len(bins))]


def _members(subset: int, joined: list[tuple[int, int]], num_places: int) -> list[int]:
    """The places of a subset, in ascending order."""
    found, waiting = [], [subset]
    while waiting:
        subset = waiting.pop()
        if subset < num_places:
            found.append(subset)
        else:
            waiting += joined[subset - num_places]
    return sorted(found)


def longest_first(work: Sequence[int], num_bins: int) -> list[list[int]]:
    """Places 0..n-1 in bins: the one with most work first, each into the bin that is lightest so far."""
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    loads = [(0, number) for number in range(num_bins)]
    for place in sorted(range(len(work)), key=lambda p: (-work[p], p)):
        load, number = loads[0]
        bins[number].append(place)
        heapq.heapreplace(loads, (load + work[place], number))
    return bins


def longest_first_with_room(
    work: Sequence[int], sizes: Sequence[int], room: int, num_bins: int
) -> list[list[int]] | None:
    """Places in bins of size `room`, the largest first, each into the bin of least work that has room for it.

    None where a place finds no room.
    """
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    held = [0] * num_bins
    loads = [(0, number) for number in range(num_bins)]
    smallest = min(sizes, default=0)
    for place in sorted(range(len(work)), key=lambda p: (-sizes[p], p)):
        passed: list[tuple[int, int]] = []
        while loads and held[loads[0][1]] + sizes[place] > room:
            full = heapq.heappop(loads)
            if held[full[1]] + smallest <= room:  # for nothing that follows is smaller
                passed.append(full)
        if not loads:
            return None
        load, number = loads[0]
        bins[number].append(place)
        held[number] += sizes[place]
        heapq.heapreplace(loads, (load + work[place], number))
        for bin_ in passed:
            heapq.heappush(loads, bin_)
    return bins


def best_fit(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Places in few bins of size `room`: the largest first, each into the fullest bin that has room for it."""
    bins: list[list[int]] = []
    spaces: list[tuple[int, int]] = []  # (room left, number), ascending
    for place in sorted(range(len(sizes)), key=lambda p: (-sizes[p], p)):
        found = bisect.bisect_left(spaces, (sizes[place], -1))
        if found == len(spaces):
            bins.append([place])
            left, number = room - sizes[place], len(bins) - 1
        else:
            left, number = spaces.pop(found)
            left -= sizes[place]
            bins[number].append(place)
        bisect.insort(spaces, (left, number))
    return bins


def deal(bins: list[list[int]], work: Sequence[int], num_ranks: int) -> list[list[list[int]]]:
    """[rank][micro-batch]: bins of a step dealt so that micro-batch m costs every rank about the same.

    Bins go out from heavy to light, one to each rank a round; the heaviest of a round to the rank that has least.
    """
    loads = [sum(work[place] for place in members) for members in bins]
    order = sorted(range(len(bins)), key=lambda n: (-loads[n], n))
    dealt: list[list[list[int]]] = [[] for _ in range(num_ranks)]
    totals = [0] * num_ranks
    for start in range(0, len(order), num_ranks):
        lightest_first = sorted(range(num_ranks), key=lambda rank: (totals[rank], rank))
        for number, rank in zip(order[start : start + num_ranks], lightest_first):
            dealt[rank].append(bins[number])
            totals[rank] += loads[number]
    return dealt
