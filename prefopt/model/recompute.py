"""Activations that are not kept for the backward pass: a layer is run again from its input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from prefopt.errors import UserError


def recompute_layers(model: PreTrainedModel, every: int, offload: bool = False) -> None:
    """Run every `every`-th decoder layer, the first among them, again in the backward pass; only its input is kept.

    Loss and gradient stay what they are: dropout draws the same numbers again. Layers do so in training mode only.
    offload: the inputs wait in pinned memory of the host instead of the device's.

    The layers are told one by one. transformers' own switch for the whole model also makes the embedding's output a
    leaf that wants a gradient, which the non-reentrant form does not need and a frozen embedding would compute in vain.

    Raises: UserError for a family whose layers transformers cannot run again.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"model.checkpoint_every={every}: transformers cannot recompute the layers of {model.config.model_type}",
            "model.checkpoint_every=null, and a lower train.tokens_per_micro_batch",
        )
    run = partial(_offloaded if offload else checkpoint, use_reentrant=False)
    for number, layer in enumerate(layers):
        settings: Any = layer
        settings.gradient_checkpointing = number % every == 0
        settings._gradient_checkpointing_func = run


def _offloaded(function: Callable[..., Any], *inputs: Any, use_reentrant: bool) -> Any:
    with save_on_cpu(pin_memory=True):
        return checkpoint(function, *inputs, use_reentrant=use_reentrant)
