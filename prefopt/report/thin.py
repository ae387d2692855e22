"""Curves with fewer points that keep their envelope: no spike and no dip is lost."""

from __future__ import annotations

from collections.abc import Sequence


def thin(points: Sequence[tuple[int, float]], limit: int) -> list[tuple[int, float]]:
    """At most `limit` of the points, in their order, with both ends and the least and the largest value of each bucket.

    points: (step, value), finite, in the order of steps. Buckets hold equal numbers of points. limit: 4 or more.

    Raises: ValueError for a smaller limit.
    """
    if limit < 4:
        raise ValueError(f"limit must be 4 or more, not {limit}")
    if len(points) <= limit:
        return list(points)
    kept = {0, len(points) - 1}
    buckets = (limit - 2) // 2
    inner = len(points) - 2
    for bucket in range(buckets):
        places = range(1 + bucket * inner // buckets, 1 + (bucket + 1) * inner // buckets)
        kept.add(min(places, key=lambda place: points[place][1]))
        kept.add(max(places, key=lambda place: points[place][1]))
    return [points[place] for place in sorted(kept)]
