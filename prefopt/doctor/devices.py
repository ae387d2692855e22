"""torch, GPUs, how processes talk, and what attention there is, from what `torch_probe` said."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefopt.disk import size
from prefopt.doctor.child import Answer, ask
from prefopt.doctor.finding import Finding, ok, problem, warning

IMPORT_SECONDS = 90.0
"""torch on a network file system that is read for the first time takes a minute."""
GROUP_SECONDS = 60.0


def torch_and_devices() -> Iterator[Finding]:
    """Everything that torch can be asked; a torch that does not answer is one problem and ends it."""
    answer = ask("prefopt.doctor.torch_probe", ["torch"], IMPORT_SECONDS)
    if answer.failed:
        yield problem("torch", answer.failed, "install it again; `python -c 'import torch'` shows the whole message")
        return
    said = answer.said
    has_gpus = bool(said["devices"])
    yield from devices(said, driver_version(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    yield gloo(said, ask("prefopt.doctor.torch_probe", ["gloo"], GROUP_SECONDS) if said["gloo"] else None)
    yield nccl(said, ask("prefopt.doctor.torch_probe", ["nccl"], GROUP_SECONDS) if has_gpus else None)
    yield flex(said)


def driver_version() -> str:
    """The NVIDIA driver's version; empty where there is none. From the kernel, else from nvidia-smi."""
    kernel = Path("/sys/module/nvidia/version")
    if kernel.is_file():
        return kernel.read_text(encoding="utf-8").strip()
    if shutil.which("nvidia-smi") is None:
        return ""
    question = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(question, capture_output=True, text=True, timeout=20)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""


def devices(said: dict[str, Any], driver: str, visible: str | None) -> Iterator[Finding]:
    """torch's build against the driver, and each GPU. visible: CUDA_VISIBLE_DEVICES, None where it is not set."""
    build = f"CUDA {said['cuda']}" if said["cuda"] else f"ROCm {said['hip']}" if said["hip"] else "CPU only"
    yield ok("torch", f"{said['version']}, built for {build}")
    if not driver and not said["available"]:
        yield ok("GPU", "no NVIDIA driver; runs use the CPU")
        return
    if driver:
        yield ok("driver", f"NVIDIA {driver}")
    if visible is not None and visible.strip() in ("", "-1"):
        yield warning("GPU", f"hidden by CUDA_VISIBLE_DEVICES={visible!r}", "unset it to train on GPUs")
    elif not said["available"]:
        advice = (
            f"take a torch built for what driver {driver} can run: https://pytorch.org/get-started/locally"
            if said["cuda"]
            else "this torch is built for CPUs: install a CUDA build (leave constraints.txt out)"
        )
        yield problem("GPU", "there is a driver, but torch reaches no GPU", f"{advice}; or launch.device=cpu")
    elif said["trouble"]:
        yield problem("GPU", said["trouble"], "see nvidia-smi; a reset or a reboot of the machine may be needed")
    for number, device in enumerate(said["devices"]):
        yield _gpu(number, device)


def _gpu(number: int, device: dict[str, Any]) -> Finding:
    name = f"GPU {number}"
    found = (
        f"{device['name']}, compute {device['compute']}, {size(device['free'])} free of {size(device['total'])},"
        f" bf16 {'yes' if device['bf16'] else 'no'}"
    )
    if device["free"] < 0.8 * device["total"]:
        return warning(name, found, "another process holds memory there: see nvidia-smi")
    if not device["bf16"]:
        return warning(name, found, "train.autocast=none and model.dtype=float32; recipes with bf16 are slow here")
    return ok(name, found)


def gloo(said: dict[str, Any], answer: Answer | None) -> Finding:
    """How processes on CPUs talk. answer: of one rank that summed a number; None where torch was built without."""
    if answer is None:
        return warning("gloo", "this torch is built without it", "several processes on CPU need another build")
    if answer.failed:
        advice = "look at the host's name in /etc/hosts, or name the card: GLOO_SOCKET_IFNAME=eth0"
        return warning("gloo", answer.failed, f"several processes will not find each other: {advice}")
    return ok("gloo", "a group of one process answers")


def nccl(said: dict[str, Any], answer: Answer | None) -> Finding:
    """How GPUs talk. answer: of one rank that summed a number; None where there is no GPU to ask."""
    if answer is None:
        version = f"{said['nccl']} is built in, " if said["nccl"] else ""
        return ok("NCCL", f"{version}not asked: no GPU")
    if not said["nccl"]:
        return warning("NCCL", "this torch is built without it", "several GPUs need another build")
    if answer.failed:
        advice = "NCCL_DEBUG=INFO says where it stops; NCCL_SOCKET_IFNAME names the network card"
        return warning("NCCL", f"{said['nccl']}: {answer.failed}", f"several GPUs will not work: {advice}")
    return ok("NCCL", f"{said['nccl']}, a group of one GPU answers")


def flex(said: dict[str, Any]) -> Finding:
    """FlexAttention, which `model.attention=flex` and auto take on GPUs."""
    if not said["flex"]:
        return ok("attention", "segments; this torch has no FlexAttention")
    where = "tried on the device at the start of a run" if said["devices"] else "on CPU rows are computed by segments"
    return ok("attention", f"FlexAttention is there; {where}; flash-attn is not used")
