"""Log-probabilities of chosen tokens from hidden states, in float32 or better, in chunks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

MAX_LOGITS = 2**26
"""Most logits held at once (256 MiB of float32). Beyond it the head runs in chunks and again in the backward pass."""


def chosen_logps(hidden: Tensor, target: Tensor, head: Callable[[Tensor], Tensor], vocabulary: int) -> Tensor:
    """log p(target) for each row: hidden [N, H], target [N] -> [N].

    head: hidden states to logits, with whatever the model does to them. vocabulary: columns of the head.
    The log-softmax is float32 even where the model is bfloat16 (float64 stays float64).
    """
    rows = max(1, MAX_LOGITS // vocabulary)
    if hidden.shape[0] <= rows:
        return _chosen(hidden, target, head)
    parts = [
        checkpoint(_chosen, h, t, head, use_reentrant=False)
        for h, t in zip(hidden.split(rows), target.split(rows), strict=True)
    ]
    return torch.cat(parts)


def _chosen(hidden: Tensor, target: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    logits = head(hidden)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return -cross_entropy(logits, target, reduction="none")
