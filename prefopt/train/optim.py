"""The optimiser, and the learning rate of each step as a table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any, Protocol

import torch
from transformers import get_scheduler

from prefopt.settings import OptimSettings
from prefopt.train.bfloat16 import Float32Updates

_SCHEDULES = {"constant": "constant_with_warmup"}


class Updates(Protocol):
    """What the engine asks of an optimiser."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Where the learning rate is set."""

    def step(self) -> object:
        """One update."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop every gradient."""

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on from a `state_dict`."""


def make_updates(parameters: list[torch.nn.Parameter], settings: OptimSettings, seed: int) -> Updates:
    """The optimiser of `settings`, with what `bfloat16_weights` says for those of `parameters` that are bfloat16.

    seed: of stochastic rounding.
    """
    make = partial(make_optimizer, settings=settings)
    is_low = any(p.dtype == torch.bfloat16 for p in parameters)
    if not is_low or settings.bfloat16_weights == "nearest":
        return make(parameters)
    return Float32Updates(parameters, make, keep_masters=settings.bfloat16_weights == "masters", seed=seed)


def clip_gradients(parameters: list[torch.nn.Parameter], most: float | None) -> float:
    """Scale the gradients so that the norm of all together is at most `most`; returns the norm before.

    The norm is float32 or better: one of bfloat16 numbers, taken as torch does in bfloat16, has three digits.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    precise = torch.promote_types(gradients[0].dtype, torch.float32)
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g, dtype=precise) for g in gradients]))
    if most is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm.item()


def make_optimizer(parameters: list[torch.nn.Parameter], settings: OptimSettings) -> torch.optim.Optimizer:
    """The optimiser that `settings.name` names, over `parameters`. Weight decay spares vectors: biases and norms.

    States, in bytes per float32 weight: adamw 8, rmsprop 4, adafactor next to none (a row and a column per matrix),
    adamw_8bit 2 (8 for tensors below 4096 weights); paged_adamw_8bit the same, at most what the GPU has room for on it.
    """
    matrices = [p for p in parameters if _num_dims(p) > 1]
    vectors = [p for p in parameters if _num_dims(p) <= 1]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return _MAKERS[settings.name]([g for g in groups if g["params"]], settings)


Groups = list[dict[str, Any]]


def _adamw(groups: Groups, settings: OptimSettings) -> torch.optim.Optimizer:
    """Loshchilov and Hutter 2019, arXiv 1711.05101. One pass over memory (fused), on the CPU too."""
    betas = (settings.betas[0], settings.betas[1])
    return torch.optim.AdamW(groups, lr=settings.lr, betas=betas, eps=settings.eps, fused=True)


def _adafactor(groups: Groups, settings: OptimSettings) -> torch.optim.Optimizer:
    """Shazeer and Stern 2018, arXiv 1804.04235, as torch has it: a step is at most lr times a matrix's own RMS."""
    return torch.optim.Adafactor(groups, lr=settings.lr)


def _rmsprop(groups: Groups, settings: OptimSettings) -> torch.optim.Optimizer:
    """Hinton's, with torch's smoothing of 0.99: what the DPO paper trained with (arXiv 2305.18290, appendix B)."""
    return torch.optim.RMSprop(groups, lr=settings.lr, eps=settings.eps)


def _adamw_8bit(groups: Groups, settings: OptimSettings) -> torch.optim.Optimizer:
    """Dettmers et al. 2022, arXiv 2110.02861."""
    from bitsandbytes.optim import AdamW8bit  # an extra

    betas = (settings.betas[0], settings.betas[1])
    return AdamW8bit(groups, lr=settings.lr, betas=betas, eps=settings.eps)


def _paged_adamw_8bit(groups: Groups, settings: OptimSettings) -> torch.optim.Optimizer:
    """The same, its states in memory that CUDA moves to the host and back (Dettmers et al. 2023, arXiv 2305.14314)."""
    from bitsandbytes.optim import PagedAdamW8bit

    betas = (settings.betas[0], settings.betas[1])
    return PagedAdamW8bit(groups, lr=settings.lr, betas=betas, eps=settings.eps)


_MAKERS: dict[str, Callable[[Groups, OptimSettings], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adamw_8bit": _adamw_8bit,
    "paged_adamw_8bit": _paged_adamw_8bit,
    "adafactor": _adafactor,
    "rmsprop": _rmsprop,
}


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
