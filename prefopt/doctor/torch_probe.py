"""python -m prefopt.doctor.torch_probe WHAT: what torch says of itself and of the devices, as one JSON object.

WHAT: `torch` (version, build, devices), `gloo` or `nccl` (a group of one process that sums one number). Run in a
process of its own, because importing torch, opening a driver and starting NCCL can hang or crash.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any


def about_torch() -> dict[str, Any]:
    """Version, the CUDA (or ROCm) that it was built for, what it can reach of it, and each device. Memory in bytes."""
    import torch

    devices = []
    trouble = ""
    if torch.cuda.is_available():
        try:
            devices = [_device(number) for number in range(torch.cuda.device_count())]
        except RuntimeError as error:
            trouble = str(error).splitlines()[0]
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "available": torch.cuda.is_available(),
        "devices": devices,
        "trouble": trouble,
        "nccl": _nccl_version(),
        "gloo": torch.distributed.is_available() and torch.distributed.is_gloo_available(),
        "flex": _has_flex(),
        "threads": torch.get_num_threads(),
    }


def one_sum(backend: str) -> dict[str, Any]:
    """A process group of one rank on `backend` that reduces one number."""
    import torch
    from torch import distributed

    device = "cuda" if backend == "nccl" else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{Path(folder) / 'store'}"
        distributed.init_process_group(backend, init_method=store, rank=0, world_size=1)
        number = torch.ones(1, device=device)
        distributed.all_reduce(number)
        total = number.item()
        distributed.destroy_process_group()
    return {"sum": total}


def _device(number: int) -> dict[str, Any]:
    import torch

    about = torch.cuda.get_device_properties(number)
    free, total = torch.cuda.mem_get_info(number)
    with torch.cuda.device(number):
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    compute = f"{about.major}.{about.minor}"
    return {"name": about.name, "free": free, "total": total, "bf16": has_bf16, "compute": compute}


def _nccl_version() -> str:
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_nccl_available()):
        return ""
    return ".".join(str(part) for part in torch.cuda.nccl.version())


def _has_flex() -> bool:
    try:
        from torch.nn.attention import flex_attention
    except ImportError:
        return False
    return hasattr(flex_attention, "create_block_mask")


if __name__ == "__main__":
    what = sys.argv[1]
    print(json.dumps(about_torch() if what == "torch" else one_sum(what)))
