"""Settings that save memory: which go together, and which need a GPU or a library. Imports nothing heavy."""

from __future__ import annotations

from importlib.util import find_spec

from prefopt.errors import UserError
from prefopt.settings import OptimSettings, RunSettings

_WITHOUT = {"adafactor": ("betas", "eps"), "rmsprop": ("betas", "weight_decay")}
"""Keys of `optim` that an optimiser does not read. (torch's RMSprop has a decay, but not a decoupled one.)"""

_OF_BITSANDBYTES = ("adamw_8bit", "paged_adamw_8bit")


def check_memory(run: RunSettings) -> None:
    """Refuse what has no effect, does not go together or lacks a library, wherever the run takes place.

    Raises: UserError naming the key.
    """
    _check_optimizer(run)
    _check_bfloat16(run)
    _check_base(run)
    if run.model.offload_activations and run.model.checkpoint_every is None:
        raise UserError(
            "model.offload_activations moves the inputs of recomputed layers, and model.checkpoint_every is null",
            "model.checkpoint_every=1",
        )


def check_device(run: RunSettings, device: str) -> None:
    """Refuse what has no effect, or cannot be had, on this device: cpu or cuda.

    Raises: UserError naming the key.
    """
    if device == "cuda":
        return
    if run.optim.name in _OF_BITSANDBYTES:
        raise UserError(f"optim.name={run.optim.name} needs a GPU, and this run is on the CPU", "optim=adafactor")
    if run.model.offload_activations:
        raise UserError(
            "model.offload_activations has no effect on the CPU: activations are in the host's memory already",
            "leave it out",
        )
    if run.fsdp.cpu_offload:
        raise UserError(
            "fsdp.cpu_offload has no effect on the CPU: everything is in the host's memory already", "leave it out"
        )
    if run.model.base != "plain":
        raise UserError(
            f"model.lora.base={run.model.base} needs a GPU, and this run is on the CPU",
            "model.lora.base=plain, and model.dtype=bfloat16 to save memory",
        )


def _check_optimizer(run: RunSettings) -> None:
    name, usual = run.optim.name, OptimSettings()
    for key in _WITHOUT.get(name, ()):
        value = getattr(run.optim, key)
        if value != getattr(usual, key):
            raise UserError(f"optim.{key}={value} has no effect: {name} takes none", "leave it out, or optim=adamw")
    if (group := _sharding(run)) and name in (*_OF_BITSANDBYTES, "adafactor"):
        raise UserError(
            f"optim.name={name} and {group} do not go together: the optimiser is handed shards, so that its numbers"
            " would depend on the number of processes",
            f"optim=adamw, whose states are split over the processes, or {group.split('.')[0]}=none",
        )


def _check_bfloat16(run: RunSettings) -> None:
    kind = run.optim.bfloat16_weights
    if kind == OptimSettings().bfloat16_weights:
        return
    for holds, why in (
        (run.model.dtype != "bfloat16", f"model.dtype is {run.model.dtype}"),
        (run.model.lora is not None, "what is trained are adapters, which are float32"),
        (run.deepspeed.config is not None, "DeepSpeed keeps float32 masters of bfloat16 weights"),
        (run.fsdp.is_on, "under FSDP the shards are float32 and only what is gathered is bfloat16"),
    ):
        if holds:
            raise UserError(f"optim.bfloat16_weights={kind} has no effect: {why}", "leave it out")


def _check_base(run: RunSettings) -> None:
    base = run.model.base
    if base == "plain":
        return
    if group := _sharding(run):
        raise UserError(
            f"model.lora.base={base} and {group} do not go together: only weights of 16 or 32 bits can be split",
            f"{group.split('.')[0]}=none: with frozen weights there is little left to shard",
        )
    if run.model.reference not in (None, run.model.path):
        raise UserError(
            f"model.reference and model.lora.base={base} do not go together: the reference is the model with its"
            " adapters off, in the same few bits",
            "leave model.reference out, or model.lora.base=plain",
        )


def _sharding(run: RunSettings) -> str:
    """The key of the engine that splits what is trained over the processes; empty where there is none."""
    return "deepspeed.config" if run.deepspeed.config is not None else "fsdp.strategy" if run.fsdp.is_on else ""


def check_libraries(run: RunSettings) -> None:
    """Refuse settings whose library is missing here: of a run, and not of a plan, which may be for another machine.

    Raises: UserError naming both, with the extra to install.
    """
    if run.optim.name in _OF_BITSANDBYTES:
        check_installed("bitsandbytes", f"optim.name={run.optim.name}")
    if run.model.base != "plain":
        check_installed("bitsandbytes", f"model.lora.base={run.model.base}")
    if run.deepspeed.config is not None:
        check_installed("deepspeed", "deepspeed.config")
    if run.tracker.name != "none":
        check_installed(run.tracker.name, f"tracker={run.tracker.name}")


def check_installed(package: str, asked_by: str) -> None:
    """Refuse a setting whose library is missing.

    Raises: UserError naming both, with the extra to install.
    """
    if find_spec(package) is None:
        raise UserError(f"{asked_by} needs {package}, which is not installed", f'pip install "prefopt[{package}]"')
