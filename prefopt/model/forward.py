"""A batch through a policy: everything that a loss may see."""

from __future__ import annotations

from typing import Protocol

import torch

from prefopt.batch import Batch, Outputs, Responses
from prefopt.model.logps import ASKS


class Forward(Protocol):
    """A policy as it is called: plain, DDP-wrapped or a DeepSpeed engine."""

    def __call__(self, batch: Batch, asks: frozenset[str] = frozenset(), /) -> Outputs:
        """What the policy gives for a batch; asks: see `Policy.forward`."""


def respond(forward: Forward, batch: Batch, needs: frozenset[str] = frozenset()) -> Responses:
    """Run the policy and gather what losses need. needs: the loss's; those that the head can answer are asked of it.

    Sums over tokens are taken in float64: a sum near -1e4 in float32 has a resolution of 1e-3.
    """
    outputs = forward(batch, needs & frozenset(ASKS))
    sums = torch.zeros(batch.lengths.shape[0], dtype=torch.float64, device=outputs.token_logps.device)
    if outputs.rewards is None:
        logps = sums.index_add(0, batch.row, outputs.token_logps.double())
    else:
        logps = torch.full_like(sums, float("nan"))  # whoever took them for log-probabilities is stopped at once
    return Responses(
        token_logps=outputs.token_logps,
        row=batch.row if outputs.rewards is None else batch.row[:0],
        logps=logps,
        lengths=batch.lengths,
        example=batch.example,
        pairs=batch.pairs,
        best=batch.best,
        prompt_lengths=batch.prompt_lengths,
        targets=batch.targets,
        prompt_logps=outputs.prompt_logps,
        reference_logps=batch.reference_logps,
        reference_token_logps=batch.reference_token_logps,
        labels=batch.labels,
        scores=batch.scores,
        margins=batch.margins,
        forward_kl=outputs.forward_kl,
        reverse_kl=outputs.reverse_kl,
        collision=outputs.collision,
        rewards=outputs.rewards,
    )
