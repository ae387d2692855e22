"""Floating-point operations of rows: a multiplication and an addition count as two."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from prefopt.plan.shape import Shape


@dataclass(frozen=True)
class Amount:
    """Some rows in sum. rows. tokens: on the axis. entries: scores of attention, places times the places they see.
    predicted: tokens whose log-probability is taken. responses; units: what `train.batch_size` counts.
    """

    rows: int
    tokens: int
    entries: int
    predicted: int
    responses: int
    units: int


@dataclass(frozen=True)
class Operations:
    """forward: of one pass. backward: of the gradient. again: what is computed a second time to save memory."""

    forward: float
    backward: float
    again: float

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.again


def operations_of(shape: Shape, amount: Amount, every: int | None, is_chunked: bool) -> Operations:
    """Training on so much.

    2 for each weight of a layer and token, 2 H V for each predicted token, 4 heads head_size for each score and layer.
    Backward: twice that for weights that are trained, once for frozen ones, whose gradient nobody asks for; attention
    2.5 times, for memory-saving kernels compute the scores again (Dao 2023, arXiv 2307.08691, section 3.1).
    every: as `model.checkpoint_every`. is_chunked: the head runs again in the backward pass.
    """
    layers = 2.0 * shape.in_layers * amount.tokens
    adapters = 2.0 * shape.adapters * amount.tokens
    head = 0.0 if shape.has_scalar_head else 2.0 * shape.hidden * shape.vocabulary * amount.predicted
    attention = 4.0 * shape.heads * shape.head_size * shape.layers * amount.entries
    of_trained = 1 if shape.adapters else 2
    share = 0 if every is None else ceil(shape.layers / every) / shape.layers
    return Operations(
        forward=layers + adapters + head + attention,
        backward=of_trained * (layers + head) + 2 * adapters + 2.5 * attention,
        again=share * (layers + adapters + attention) + (head if is_chunked else 0),
    )
