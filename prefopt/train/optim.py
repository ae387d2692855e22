"""The optimiser, and the learning rate of each step as a table."""

from __future__ import annotations

from math import ceil

import torch
from transformers import get_scheduler

from prefopt.settings import OptimSettings

_SCHEDULES = {"constant": "constant_with_warmup"}


def make_optimizer(parameters: list[torch.nn.Parameter], settings: OptimSettings) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101). Weight decay spares vectors: biases and norms."""
    matrices = [p for p in parameters if _num_dims(p) > 1]
    vectors = [p for p in parameters if _num_dims(p) <= 1]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=settings.lr,
        betas=(settings.betas[0], settings.betas[1]),
        eps=settings.eps,
    )


def _num_dims(parameter: torch.nn.Parameter) -> int:
    """Dimensions of the whole parameter; under ZeRO-3 the local tensor is a flat shard (DeepSpeed's `ds_shape`)."""
    return len(parameter.ds_shape) if hasattr(parameter, "ds_shape") else parameter.ndim


def learning_rates(settings: OptimSettings, num_steps: int) -> list[float]:
    """The learning rate of every step: transformers' schedule, read off once.

    A table has no state to save, is the same however a run is interrupted, and is stepped once per optimiser step
    under every engine (a scheduler prepared by accelerate is stepped once per rank).
    """
    holder = torch.optim.SGD([torch.zeros(1)], lr=settings.lr)
    schedule = get_scheduler(
        _SCHEDULES.get(settings.schedule, settings.schedule),
        holder,
        num_warmup_steps=ceil(settings.warmup_ratio * num_steps),
        num_training_steps=num_steps,
    )
    rates = []
    for _ in range(num_steps):
        rates.append(schedule.get_last_lr()[0])
        holder.step()
        schedule.step()
    return rates
