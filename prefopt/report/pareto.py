"""The Pareto front of points in several objectives, and its hypervolume: pure functions, exact for two and three.

A point dominates another where it is at least as good in every objective and better in one. The hypervolume is the
measure of the region that lies between a reference point and the points that dominate it (Zitzler and Thiele 1998, "the
size of the space covered"): an area of two objectives, a volume of three. Its unit is the product of the objectives'.
"""

from __future__ import annotations

from collections.abc import Sequence

MAXIMIZE, MINIMIZE = "maximize", "minimize"

Point = Sequence[float]


def front(points: Sequence[Point], directions: Sequence[str]) -> list[int]:
    """The places of the points that no other dominates, in their order; equal points are all in it.

    points: of one length, finite. directions: maximize or minimize, one for each objective.

    Raises: ValueError where lengths or directions do not fit.
    """
    turned = _turned(points, directions)
    # Whoever dominates a point comes before it in this order, and some point of the front dominates it.
    order = sorted(range(len(turned)), key=lambda place: turned[place], reverse=True)
    found: list[int] = []
    for place in order:
        if not any(_dominates(turned[other], turned[place]) for other in found):
            found.append(place)
    return sorted(found)


def worst(points: Sequence[Point], directions: Sequence[str]) -> list[float]:
    """The worst value of each objective among the points: the usual reference point where nobody gives one."""
    _turned(points, directions)
    return [(min if way == MAXIMIZE else max)(values) for values, way in zip(zip(*points), directions)]


def hypervolume(points: Sequence[Point], directions: Sequence[str], reference: Point) -> float:
    """The area (two objectives), volume (three) or length (one) of what the points dominate beyond `reference`.

    A point that is not better than the reference in every objective adds nothing.

    Raises: ValueError for more than three objectives, and where lengths or directions do not fit.
    """
    turned = _turned(points, directions)
    corner = _turned([reference], directions)[0]
    above = [tuple(x - c for x, c in zip(point, corner)) for point in turned]
    above = [point for point in above if all(x > 0 for x in point)]
    if len(directions) == 1:
        return max((point[0] for point in above), default=0.0)
    if len(directions) == 2:
        return _area([(point[0], point[1]) for point in above])
    return _volume(above)


def _volume(points: Sequence[tuple[float, ...]]) -> float:
    """Of boxes that have a corner in the origin: slices between heights, each with the area of those that reach it."""
    found = 0.0
    heights = sorted({point[2] for point in points}, reverse=True)
    for height, below in zip(heights, [*heights[1:], 0.0]):
        found += (height - below) * _area([(point[0], point[1]) for point in points if point[2] >= height])
    return found


def _area(points: Sequence[tuple[float, float]]) -> float:
    """Of rectangles that have a corner in the origin: from the widest to the narrowest, each adds what stands out."""
    area, top = 0.0, 0.0
    for x, y in sorted(points, reverse=True):
        if y > top:
            area += x * (y - top)
            top = y
    return area


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(x >= y for x, y in zip(one, other))


def _turned(points: Sequence[Point], directions: Sequence[str]) -> list[tuple[float, ...]]:
    """The points with every objective to be maximised."""
    if not 1 <= len(directions) <= 3 or not set(directions) <= {MAXIMIZE, MINIMIZE}:
        raise ValueError(f"directions must be one to three of {MAXIMIZE} and {MINIMIZE}, not {list(directions)}")
    if any(len(point) != len(directions) for point in points):
        raise ValueError(f"every point must have {len(directions)} objectives")
    return [tuple(x if way == MAXIMIZE else -x for x, way in zip(point, directions)) for point in points]
