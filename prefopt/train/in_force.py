"""What really runs, beside what was planned: launches exist that look like two ranks and are two runs of one."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from prefopt.errors import RunError
from prefopt.manifest import package_versions
from prefopt.settings import RunSettings

_DECOUPLED = ("Adafactor", "AdamW8bit", "PagedAdamW8bit")
"""Optimisers that take weight decay off the weights and have no key that says so."""
_CLASSES = {
    "adamw": "AdamW",
    "adamw_8bit": "AdamW8bit",
    "paged_adamw_8bit": "PagedAdamW8bit",
    "adafactor": "Adafactor",
    "rmsprop": "RMSprop",
}


@dataclass(frozen=True)
class InForce:
    """What decides the numbers of a run besides its settings. A field is read off what runs, or planned."""

    engine: str
    processes: int
    backend: str
    device: str
    optimizer: str
    weight_decay: str
    clipping: float | None
    weights: str
    gradients: str

    def __str__(self) -> str:
        over = "" if self.processes == 1 else f" over {self.processes} processes"
        through = "" if self.backend == "none" else f", {self.backend}"
        clip = "no clipping" if self.clipping is None else f"clipping at {self.clipping:g}"
        return (
            f"{self.engine}{over}{through} on {self.device}, {self.optimizer} with {self.weight_decay}, {self.weights},"
            f" {self.gradients} gradients, {clip}"
        )


def planned(run: RunSettings, processes: int, device: str) -> InForce:
    """What the settings ask for, on so many processes."""
    low = run.model.dtype == "bfloat16" or run.train.autocast == "bf16"
    stage, is_alone = run.deepspeed.stage, processes == 1
    backend = "none" if is_alone and stage is None and not run.fsdp.is_on else "gloo" if device == "cpu" else "nccl"
    gradients = "float32" if run.model.lora is not None or run.fsdp.is_on else run.model.dtype
    if stage is not None:
        gradients = "bfloat16" if low else "float32"
    return InForce(
        engine="one process" if is_alone and run.engine == "DDP" else run.engine,
        processes=processes,
        backend=backend,
        device=device,
        optimizer=_CLASSES[run.optim.name],
        weight_decay=_decay(run.optim.weight_decay, True),
        clipping=run.optim.max_grad_norm,
        weights=_planned_weights(run, low),
        gradients=gradients,
    )


def read(kind: Any, processes: int, device: str) -> InForce:
    """What runs. kind: the engine's `Plain`, `Unsplit`, `Zero` or `Fsdp`."""
    inner = kind.inner
    return InForce(
        engine=kind.name,
        processes=processes,
        backend=torch.distributed.get_backend() if torch.distributed.is_initialized() else "none",
        device=device,
        optimizer=type(inner).__name__,
        weight_decay=_decay(max(group["weight_decay"] for group in inner.param_groups), _is_decoupled(inner)),
        clipping=kind.clipping,
        weights=kind.weights,
        gradients=kind.gradients,
    )


def check(got: InForce, wanted: InForce, run: RunSettings) -> None:
    """Refuse to train where what runs is not what was planned.

    Raises: RunError with every difference.
    """
    free = {"gradients"} if _chooses_reduction(run) else set()
    differences = [
        f"{f.name.replace('_', ' ')}: {getattr(got, f.name)}, planned was {getattr(wanted, f.name)}"
        for f in fields(InForce)
        if f.name not in free and getattr(got, f.name) != getattr(wanted, f.name)
    ]
    if differences:
        raise RunError(
            f"what runs is not what the recipe says: {'; '.join(differences)}",
            "start the run with `prefopt train`, without ACCELERATE_ and FSDP_ variables in the environment",
        )


def check_world(processes: int) -> None:
    """Refuse a world that is not the launcher's: two ranks that each believe they are alone would train the same data
    twice and overwrite each other.

    Raises: RunError naming both numbers.
    """
    expected = int(os.environ.get("PREFOPT_WORLD_SIZE", "1"))
    started = int(os.environ.get("WORLD_SIZE", "1"))
    for number, who in ((expected, "prefopt planned"), (started, "the launcher started")):
        if processes != number:
            raise RunError(
                f"{who} {number} processes but this one sees {processes}",
                "start the run with `prefopt train`, which sets up the process group",
            )


def check_environment() -> None:
    """Refuse variables by which accelerate or transformers would take another road than the recipe's.

    Raises: RunError naming the variable.
    """
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_PARALLELISM_CONFIG"):
        if os.environ.get(name, "false").lower() in ("1", "true"):
            raise RunError(f"the environment sets {name}, by which libraries would load and split weights", "unset it")


def rank_record(run: RunSettings) -> dict[str, Any]:
    """What must be the same on every rank: the settings, and the versions of whatever computes."""
    settings = hashlib.sha256(json.dumps(asdict(run), sort_keys=True).encode()).hexdigest()
    return {"run.yaml": settings[:12], **package_versions()}


def check_ranks(records: list[tuple[str, dict[str, Any]]]) -> None:
    """Refuse ranks that run other code or another recipe. records: host and `rank_record`, in order of ranks.

    Raises: RunError naming the ranks' hosts and what differs.
    """
    host, first = records[0]
    for rank, (other_host, other) in enumerate(records):
        for key in sorted(first.keys() | other.keys()):
            if first.get(key) != other.get(key):
                raise RunError(
                    f"rank {rank} on {other_host} has {key} {other.get(key, 'missing')}, rank 0 on {host} has"
                    f" {first.get(key, 'missing')}",
                    "the same environment and the same run folder on every node",
                )


def _planned_weights(run: RunSettings, low: bool) -> str:
    if run.deepspeed.config is not None:
        low = low and not (run.deepspeed.stage == 3 and run.model.lora is not None)  # adapters join after the casting
        return "bfloat16 weights with float32 masters" if low else "float32 weights"
    is_trained_low = run.model.dtype == "bfloat16" and run.model.lora is None
    if run.fsdp.is_on:
        gathered_low = is_trained_low or run.train.autocast == "bf16"
        return "float32 shards gathered as bfloat16" if gathered_low else "float32 shards"
    held = f"{run.model.dtype} weights"
    how = {
        "masters": "with float32 masters",
        "stochastic": "rounded stochastically",
        "nearest": "rounded to nearest, which loses updates below their precision",
    }
    return f"{held} {how[run.optim.bfloat16_weights]}" if is_trained_low else held


def _decay(size: float, is_decoupled: bool) -> str:
    if not size:
        return "no weight decay"
    return f"{'decoupled weight decay' if is_decoupled else 'weight decay in the gradient'} {size:g}"


def _is_decoupled(optimizer: Any) -> bool:
    if hasattr(optimizer, "adam_w_mode"):  # DeepSpeed's own
        return bool(optimizer.adam_w_mode)
    said = [group.get("decoupled_weight_decay") for group in optimizer.param_groups]
    if None in said:
        return type(optimizer).__name__ in (*_DECOUPLED, "AdamW")
    return all(said)


def _chooses_reduction(run: RunSettings) -> bool:
    """Whether DeepSpeed's own keys say what gradients are added up in."""
    return bool({"communication_data_type", "data_types"} & set(run.deepspeed.config or {}))
