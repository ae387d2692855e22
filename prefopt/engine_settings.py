"""The groups of a run that say by which engine it is computed, and what an engine is called."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class DeepSpeedSettings:
    """DeepSpeed's own configuration, passed through; null: no DeepSpeed."""

    config: dict[str, Any] | None = None

    @property
    def stage(self) -> int | None:
        """ZeRO's stage; None without DeepSpeed."""
        return None if self.config is None else self.zero.get("stage", 0)

    @property
    def zero(self) -> dict[str, Any]:
        """What is said of ZeRO."""
        return (self.config or {}).get("zero_optimization") or {}

    def offload_device(self, what: str) -> str:
        """Where `optimizer` states or `param` (weights) wait: none, cpu or nvme."""
        return str((self.zero.get(f"offload_{what}") or {}).get("device", "none"))


@dataclass
class FsdpSettings:
    """PyTorch's FSDP2. strategy: full_shard splits weights, gradients and optimiser states over the processes.

    reshard_after_forward: drop a layer's gathered weights after its forward pass and gather them again in the backward
    pass. cpu_offload: what is split waits in the host's memory, and the optimiser runs there.
    """

    strategy: str = field(default="none", metadata={"choices": ("none", "full_shard")})
    reshard_after_forward: bool = True
    cpu_offload: bool = False

    @property
    def is_on(self) -> bool:
        """Whether weights are split."""
        return self.strategy != "none"


def zero_name(stage: int, offloaded: list[str]) -> str:
    """DeepSpeed at a ZeRO stage. offloaded: what waits in the host's memory, `optimizer` and `param`."""
    where = " and ".join(f"{what} on the CPU" for what in offloaded)
    return f"DeepSpeed ZeRO-{stage} with {where}" if where else f"DeepSpeed ZeRO-{stage}"
