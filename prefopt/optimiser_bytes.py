"""Bytes that an optimiser keeps for what it trains: what a checkpoint holds besides the weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod


def optimiser_bytes(shapes: Iterable[Sequence[int]], name: str) -> int:
    """Of all states, float32 or of 8 bits, for weights of these shapes; masters are not among them.

    name: `optim.name`.
    """
    shapes = [tuple(shape) for shape in shapes]
    if name == "adamw":
        return 8 * sum(map(prod, shapes))
    if name == "rmsprop":
        return 4 * sum(map(prod, shapes))
    if name == "adafactor":  # a row and a column for a matrix, every number for a vector
        return 4 * sum(prod(s[:-2]) * (s[-1] + s[-2]) if len(s) > 1 else prod(s) for s in shapes)
    # 8 bits twice, and a float32 scale for each 256 of both; tensors below 4096 numbers stay float32
    return round(sum((2 + 8 / 256) * prod(s) if prod(s) >= 4096 else 8 * prod(s) for s in shapes))
