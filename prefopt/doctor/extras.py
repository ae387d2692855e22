"""Packages that some runs need and most do not: DeepSpeed and what compiles its extensions, bitsandbytes, trackers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from prefopt.doctor.finding import Finding, ok, warning

TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")


def installed(package: str) -> str | None:
    """Its version; None where it is not there. Nothing is imported."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def deepspeed() -> Iterator[Finding]:
    """Whether ZeRO can be used: the package, and what its extensions are compiled with."""
    yield deepspeed_build(installed("deepspeed"), shutil.which, find_spec("ninja") is not None, os.environ)


def deepspeed_build(
    found: str | None, which: Callable[[str], str | None], has_ninja_package: bool, environment: Mapping[str, str]
) -> Finding:
    """found: DeepSpeed's version or None. which: path of a program or None. environment: has CXX and CUDA_HOME."""
    if found is None:
        return ok("DeepSpeed", "not installed; needed by deepspeed=zero0 to zero3 alone (fsdp=full_shard needs none)")
    compiler = which(environment.get("CXX", "g++"))
    nvcc = which("nvcc") or (environment.get("CUDA_HOME") and which(f"{environment['CUDA_HOME']}/bin/nvcc"))
    missing = []
    if compiler is None:
        missing.append("a C++ compiler (apt-get install g++, or CXX=PATH)")
    if which("ninja") is None:
        missing.append(
            "ninja on the PATH (it is installed: put the environment's bin in front)"
            if has_ninja_package
            else "ninja (pip install ninja)"
        )
    about = f"{found}, compiler {compiler or 'none'}, nvcc {nvcc or 'none'}"
    if missing:
        advice = f"its extensions for CPU (gloo, offloading) cannot be compiled: it lacks {' and '.join(missing)}"
        return warning("DeepSpeed", about, advice)
    if nvcc is None:
        return ok("DeepSpeed", about, "compiles for CPU; its CUDA extensions, which prefopt does not need, want nvcc")
    return ok("DeepSpeed", about)


def bitsandbytes() -> Iterator[Finding]:
    """Needed by 8-bit optimisers and 4-bit weights alone."""
    found = installed("bitsandbytes")
    only = "needed by optim=adamw_8bit, paged_adamw_8bit and model.lora.base=nf4, int8 alone"
    yield ok("bitsandbytes", found or f"not installed; {only}")


def trackers() -> Iterator[Finding]:
    """Those that `tracker=` can name; metrics.jsonl needs none."""
    there = [f"{name} {found}" for name in TRACKERS if (found := installed(name))]
    yield ok("trackers", ", ".join(there) or "none installed; metrics.jsonl is always written")
