"""Weights that are not finite are refused when they are loaded: what follows could not tell where they came from."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from prefopt.errors import UserError


def check_finite(model: nn.Module, folder: Path) -> None:
    """Refuse a model with a weight that is not finite. folder: what it was loaded from.

    Costs one pass over the memory of the weights. Under ZeRO-3 a rank looks at its own shards, under FSDP2 at what it
    has read itself.

    Raises: UserError naming the tensor and its file.
    """
    for name, parameter in model.named_parameters():
        held = getattr(parameter, "ds_tensor", parameter).detach()
        if held.is_floating_point() and not held.is_meta and not _is_finite(held):
            raise _error(name, held.dtype, folder)


def _is_finite(tensor: Tensor) -> bool:
    """A finite sum has finite terms, and takes no memory; a sum that overflows says nothing yet."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _error(name: str, dtype: torch.dtype, folder: Path) -> UserError:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as content:
            for stored in content.keys():  # noqa: SIM118 - it has keys and is no mapping
                tensor = content.get_tensor(stored)
                if tensor.is_floating_point() and (bad := int((~tensor.float().isfinite()).sum())):
                    return UserError(
                        f"{file}: {bad} of the {tensor.numel()} numbers of {stored} are not finite",
                        "copy it again, or take an earlier checkpoint of the training that made it",
                    )
    held = str(dtype).removeprefix("torch.")
    message = f"{folder}: {name} has numbers that are not finite as {held}"
    return UserError(message, "another model; or another model.dtype")
