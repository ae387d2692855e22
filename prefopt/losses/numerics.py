"""Functions of log-probabilities that stay finite where the plain formula does not. torch is imported when called."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NEARLY_CERTAIN = -1e-12
"""Largest log-probability that `log1mexp` tells from 0: nats. Above it p is taken as 1 - 1e-12."""

STEEPEST = 40.0
"""Largest exponent that `exp_or_line` and `expm1_or_line` take: squares of their gradient still fit into float32."""


def logsigmoid(x: Tensor) -> Tensor:
    """log(1 / (1 + exp(-x))), exact in both tails."""
    from torch.nn.functional import logsigmoid as torch_logsigmoid

    return torch_logsigmoid(x)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)). 1 - sigmoid(x) is written sigmoid(-x), which keeps its digits."""
    import torch

    return torch.sigmoid(x)


def exp_or_line(x: Tensor) -> Tensor:
    """exp(x) up to x = `STEEPEST`, beyond it its tangent: finite, and with a gradient, where exp overflows."""
    return x.clamp(max=STEEPEST).exp() + _rise_beyond(x)


def expm1_or_line(x: Tensor) -> Tensor:
    """exp(x) - 1 up to x = `STEEPEST`, beyond it its tangent; as `exp_or_line`, with all its digits near x = 0."""
    import torch

    return torch.expm1(x.clamp(max=STEEPEST)) + _rise_beyond(x)


def _rise_beyond(x: Tensor) -> Tensor:
    """What the tangent of exp at `STEEPEST` adds beyond it."""
    return math.exp(STEEPEST) * (x - STEEPEST).clamp(min=0)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0: the log-probability of everything else.

    Two branches that meet at -ln 2 keep every digit (Maechler 2012, "Accurately computing log(1 - exp(-|a|))").
    x is cut at `NEARLY_CERTAIN`, beyond which the gradient is 0: a response that is certain in the arithmetic of the
    model has nothing left to learn, and -inf would end the run.
    """
    import torch

    x = x.clamp(max=NEARLY_CERTAIN)
    near_zero = x > -math.log(2.0)
    # Each branch sees harmless input where the other one is taken, else its NaN gradient would pass through `where`.
    small = torch.log(-torch.expm1(torch.where(near_zero, x, -1.0)))
    large = torch.log1p(-torch.exp(torch.where(near_zero, -1.0, x)))
    return torch.where(near_zero, small, large)
