"""A batch through a policy: everything that a loss may see."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prefopt.batch import Batch, Responses


def respond(policy: Callable[[Batch], tuple[Tensor, Tensor]], batch: Batch) -> Responses:
    """Run the policy (plain, DDP-wrapped or a DeepSpeed engine) and gather what losses need.

    Sums over tokens are taken in float64: a sum near -1e4 in float32 has a resolution of 1e-3.
    """
    token_logps, prompt_logps = policy(batch)
    sums = torch.zeros(batch.lengths.shape[0], dtype=torch.float64, device=token_logps.device)
    return Responses(
        token_logps=token_logps,
        row=batch.row,
        logps=sums.index_add(0, batch.row, token_logps.double()),
        lengths=batch.lengths,
        example=batch.example,
        pairs=batch.pairs,
        best=batch.best,
        prompt_logps=prompt_logps,
        reference_logps=batch.reference_logps,
        labels=batch.labels,
        margins=batch.margins,
    )
