"""Statistical rejection sampling (RSO, arXiv 2309.06657, Algorithm 1): candidates of the SFT policy become samples of
the policy that is optimal for their rewards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Accepted(NamedTuple):
    """places: 0-based, in the order in which they were accepted. rounds: times that the list was walked through."""

    places: tuple[int, ...]
    rounds: int


def acceptance(reward: float, top: float, beta: float) -> float:
    """The probability with which a round accepts a candidate. beta 0 is the limit: only the top reward, always."""
    if reward == top:
        return 1.0
    return math.exp((reward - top) / beta) if beta else 0.0


def rejection_sample(rewards: Sequence[float], num_samples: int, beta: float, draw: Callable[[], float]) -> Accepted:
    """Exactly `num_samples` of the candidates, told apart by place.

    A round takes the highest reward that is left and walks through what is left in order: each draws u in [0, 1) and is
    accepted where u < exp((reward - top) / beta). The walk ends as soon as there are enough; who was accepted is gone
    in the next round. The top is always accepted, so there are at most `num_samples` rounds.

    beta: in units of the rewards; large takes any, 0 takes the best. draw: the next u, one per candidate visited.
    `num_samples` may not exceed the number of rewards.
    """
    if num_samples > len(rewards):
        raise ValueError(f"{num_samples} samples of {len(rewards)} candidates")
    accepted: list[int] = []
    left = list(range(len(rewards)))
    rounds = 0
    while len(accepted) < num_samples:
        rounds += 1
        top = max(rewards[place] for place in left)
        for place in tuple(left):
            if draw() < acceptance(rewards[place], top, beta):
                accepted.append(place)
                left.remove(place)
                if len(accepted) == num_samples:
                    break
    return Accepted(tuple(accepted), rounds)
