"""Fronts and hypervolumes: by hand, and against what their definitions say of any points."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefopt.report.pareto import MAXIMIZE, MINIMIZE, front, hypervolume, worst

UP2, UP3 = (MAXIMIZE,) * 2, (MAXIMIZE,) * 3

GRID = st.integers(0, 4).map(float)
"""Few values, so that ties and equal points occur."""


def test_the_front_is_what_nothing_dominates() -> None:
    points = [(1.0, 3.0), (2.0, 2.0), (1.5, 1.5), (3.0, 1.0), (3.0, 0.5)]
    assert front(points, UP2) == [0, 1, 3]


def test_equal_points_are_all_on_the_front() -> None:
    assert front([(1.0, 1.0), (1.0, 1.0), (0.0, 1.0)], UP2) == [0, 1]


def test_a_direction_turns_an_objective() -> None:
    points = [(1.0, 3.0), (2.0, 2.0), (1.5, 2.5)]
    assert front(points, (MAXIMIZE, MAXIMIZE)) == [0, 1, 2]
    assert front(points, (MAXIMIZE, MINIMIZE)) == [1]
    assert worst(points, (MAXIMIZE, MINIMIZE)) == [1.0, 3.0]


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([(1.0, 1.0)], 2.0),  # from the corner (0, -1)
        ([(1.0, 0.0), (0.5, 1.0)], 1.0 + 0.5),
        ([(1.0, 0.0), (0.5, -0.5)], 1.0),  # the second is dominated
        ([(0.5, 0.0), (1.0, 0.0)], 1.0),
        ([(0.4, -1.0)], 0.0),  # not better than the corner in both
        ([], 0.0),
    ],
)
def test_hypervolume_of_two_objectives_is_an_area(points: list[tuple[float, float]], area: float) -> None:
    assert hypervolume(points, UP2, (0.0, -1.0)) == pytest.approx(area)


@pytest.mark.parametrize(
    ("points", "volume"),
    [
        ([(2.0, 3.0, 4.0)], 24.0),
        ([(2.0, 1.0, 1.0), (1.0, 2.0, 1.0)], 2 + 2 - 1),
        ([(3.0, 1.0, 1.0), (1.0, 3.0, 1.0), (1.0, 1.0, 3.0)], 3 + 3 + 3 - 3 + 1),  # all overlap in the unit cube
        ([(1.0, 1.0, 1.0), (1.0, 1.0, 1.0)], 1.0),
    ],
)
def test_hypervolume_of_three_objectives_is_a_volume(points: list[tuple[float, ...]], volume: float) -> None:
    assert hypervolume(points, UP3, (0.0, 0.0, 0.0)) == pytest.approx(volume)


def test_less_is_better_is_measured_from_the_other_side() -> None:
    assert hypervolume([(1.0, 0.25)], (MAXIMIZE, MINIMIZE), (0.0, 1.0)) == pytest.approx(0.75)


@given(st.lists(st.tuples(GRID, GRID, GRID), max_size=6))
def test_hypervolume_is_the_union_of_boxes(points: list[tuple[float, float, float]]) -> None:
    union = 0.0
    for size in range(1, len(points) + 1):
        for some in combinations(points, size):
            x, y, z = (min(side) for side in zip(*some))
            union += (-1) ** (size + 1) * x * y * z
    assert hypervolume(points, UP3, (0.0, 0.0, 0.0)) == pytest.approx(union)


@given(st.lists(st.tuples(GRID, GRID, GRID), max_size=12))
def test_the_front_is_that_of_the_definition_and_has_the_whole_hypervolume(points: list[tuple[float, ...]]) -> None:
    def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return a != b and all(x >= y for x, y in zip(a, b))

    found = front(points, UP3)
    assert found == [p for p in range(len(points)) if not any(dominates(other, points[p]) for other in points)]
    corner = (0.0, 0.0, 0.0)
    assert hypervolume([points[p] for p in found], UP3, corner) == pytest.approx(hypervolume(points, UP3, corner))


@pytest.mark.parametrize("directions", [(), (MAXIMIZE,) * 4, ("up", "down")])
def test_other_numbers_of_objectives_and_other_directions_are_refused(directions: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="directions must be one to three"):
        front([(1.0,) * len(directions)], directions)


def test_points_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="must have 2 objectives"):
        hypervolume([(1.0, 2.0, 3.0)], UP2, (0.0, 0.0))
