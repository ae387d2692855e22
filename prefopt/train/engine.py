"""What computes: one process, DDP or DeepSpeed, behind the few calls that the step needs.

accelerate starts the process group and wraps the model; the loop is ours. Gradients are those of a sum that the step
has already divided by global counts, so every engine's averaging over ranks is undone by a factor `world_size`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from math import isfinite
from typing import Any

import torch
from accelerate import Accelerator, DeepSpeedPlugin, DistributedDataParallelKwargs
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from torch import Tensor

from prefopt.batch import Batch, Outputs
from prefopt.errors import RunError
from prefopt.model.policy import Policy
from prefopt.settings import RunSettings
from prefopt.train.bfloat16 import Float32Updates
from prefopt.train.optim import Updates, clip_gradients, make_optimizer, make_updates


class Engine:
    """One rank's share of the machine.

    rank, world_size: this process among all. device: where its batches go. is_main: whether it writes and prints.
    tokens_per_micro_batch: the budget in force; 0 until it is measured, where the recipe says auto.
    live_reference: a frozen model that the policy is compared with token by token, or None.
    policy: the unwrapped policy. module: the policy as it must be called (DDP- or DeepSpeed-wrapped).
    """

    def __init__(self, run: RunSettings) -> None:
        """Start the process group. Make the policy next (ZeRO-3 shards it as it loads), then call `wrap`.

        Raises: RunError where the world is not the one the launcher planned: two ranks that each believe they are
            alone would train the same data twice and overwrite each other.
        """
        self.run = run
        self.zero_stage = _zero_stage(run)
        cpu = run.launch.device == "cpu" or not torch.cuda.is_available()
        handlers: list[Any] = [DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)]
        if "RANK" in os.environ:  # with DeepSpeed on CPU, accelerate takes every rank for a world of one unless told
            timeout = timedelta(minutes=run.launch.timeout_minutes)
            handlers.append(InitProcessGroupKwargs(backend="gloo" if cpu else "nccl", timeout=timeout))
        self.accelerator = Accelerator(
            cpu=cpu and self.zero_stage is None,
            mixed_precision="bf16" if run.train.autocast == "bf16" else "no",
            deepspeed_plugin=_deepspeed_plugin(run),
            kwargs_handlers=handlers,
        )
        self.rank = self.accelerator.process_index
        self.world_size = self.accelerator.num_processes
        self.device = self.accelerator.device
        self.is_main = self.rank == 0
        planned = int(os.environ.get("PREFOPT_WORLD_SIZE", "1"))
        if self.world_size != planned:
            raise RunError(
                f"the launcher planned {planned} processes but this one sees {self.world_size}",
                "start the run with `prefopt train`, which sets up the process group",
            )
        self.policy: Policy
        self.module: Any
        self.live_reference: Policy | None = None
        stated = run.train.tokens_per_micro_batch
        self.tokens_per_micro_batch: int = 0 if stated == "auto" else stated
        self.optimizer: Updates

    def wrap(self, policy: Policy) -> None:
        """Put the policy under this engine, with an optimiser over its trainable parameters.

        Raises: RunError where the engine replaced the optimiser or the clipping that the recipe states.
        """
        self.policy = policy
        policy.train()
        if self.zero_stage is None:
            self.module = self.accelerator.prepare(policy)  # masters are made where the weights have gone
            self.optimizer = make_updates(self._trainable(), self.run.optim, self.run.train.seed)
        else:
            own = make_optimizer(self._trainable(), self.run.optim)
            self.module, self.optimizer = self.accelerator.prepare(policy, own)
            if self.accelerator.distributed_type is not DistributedType.DEEPSPEED:
                raise RunError(
                    f"the recipe asks for DeepSpeed but accelerate runs {self.accelerator.distributed_type.value}",
                    "unset ACCELERATE_USE_CPU and start the run with `prefopt train`",
                )
            inner = self.module.optimizer.optimizer
            if type(inner) is not type(own):
                said = f"DeepSpeed trains with {type(inner).__name__}, not with {type(own).__name__}"
                raise RunError(said, "drop the offload keys")
            if (self.module.gradient_clipping() or None) != self.run.optim.max_grad_norm:
                raise RunError(f"DeepSpeed clips at {self.module.gradient_clipping()}, not at optim.max_grad_norm")

    def __call__(self, batch: Batch, asks: frozenset[str] = frozenset()) -> Outputs:
        """The wrapped policy's forward; a live reference of its own goes along where there is one."""
        return self.module(batch, asks, self.live_reference)

    @property
    def arithmetic(self) -> torch.dtype:
        """What the forward pass computes in."""
        own = next(self.policy.parameters()).dtype
        return torch.bfloat16 if self.accelerator.mixed_precision == "bf16" else own

    @property
    def in_force(self) -> str:
        """One line: what really runs, read from the engine and not from the recipe."""
        kind = "one process" if self.world_size == 1 else f"DDP over {self.world_size} processes"
        if self.zero_stage is not None:
            kind = f"DeepSpeed ZeRO-{self.module.zero_optimization_stage()} over {self.world_size} processes"
        backend = f", {torch.distributed.get_backend()}" if torch.distributed.is_initialized() else ""
        clip = self.run.optim.max_grad_norm
        return (
            f"{kind}{backend} on {self.device.type}, {self._optimizer_name}, {self._weights},"
            f" autocast {self.accelerator.mixed_precision}, layout {self.policy.layout},"
            f" attention {'of the model' if self.policy.layout == 'padded' else self.policy.kernel},"
            f" {'no clipping' if clip is None else f'clipping at {clip:g}'}"
        )

    @property
    def _optimizer_name(self) -> str:
        if self.zero_stage is not None:
            return type(self.module.optimizer.optimizer).__name__
        inner = self.optimizer.optimizer if isinstance(self.optimizer, Float32Updates) else self.optimizer
        return type(inner).__name__

    @property
    def _weights(self) -> str:
        """What the weights are held in, and how those of 8 bits of precision take updates that they cannot hold."""
        held = f"{str(next(self.policy.parameters()).dtype).removeprefix('torch.')} weights"
        if self.run.model.base != "plain":
            held = f"{self.run.model.base} base, {held}"
        if not any(p.dtype == torch.bfloat16 for p in self._trainable()):
            return held
        if self.zero_stage is not None:
            return f"{held} with float32 masters"  # DeepSpeed's bf16 keeps them
        if isinstance(self.optimizer, Float32Updates):
            return f"{held} {self.optimizer.how}"
        return f"{held} rounded to nearest, which loses updates below their precision"

    def _trainable(self) -> list[torch.nn.Parameter]:
        return [p for p in self.policy.parameters() if p.requires_grad]

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum over ranks; every rank must call."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Every rank's object, in order of ranks; every rank must call."""
        if self.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(gathered, value)
        return gathered

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.accelerator.wait_for_everyone()

    def set_lr(self, lr: float) -> None:
        """The learning rate of the next step, in every group of whatever wraps the optimiser."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[Callable[[Tensor], None]]:
        """Around forward and backward of one micro-batch; yields `backward`. Ranks exchange gradients at the last."""
        if self.zero_stage is not None:
            self.module.set_gradient_accumulation_boundary(last)
            yield self.module.backward
        elif self.world_size > 1 and not last:
            with self.module.no_sync():
                yield Tensor.backward
        else:
            yield Tensor.backward

    def step(self) -> float:
        """Clip, update, clear the gradients; returns the norm before clipping. One that is not finite updates nothing.

        (Under DeepSpeed the norm is known only after the update; the caller stops before anything is saved.)
        """
        if self.zero_stage is not None:
            self.module.step()
            norm = self.module.get_global_grad_norm()
            return float(norm)
        norm = clip_gradients(self._trainable(), self.run.optim.max_grad_norm)
        if isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def discard_gradients(self) -> None:
        """Forget what backward passes left, and give their memory back; not under DeepSpeed, which keeps its own."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def gathered_state(self) -> dict[str, Tensor]:
        """The whole model's tensors by their names in the transformers model; on rank 0 only, empty elsewhere."""
        state = self.accelerator.get_state_dict(self.module) or {}
        return {name.removeprefix("model."): tensor for name, tensor in state.items()} if self.is_main else {}

    def close(self) -> None:
        """End the process group; without it good runs sometimes end in an abort."""
        self.accelerator.end_training()


def _zero_stage(run: RunSettings) -> int | None:
    config = run.deepspeed.config
    return None if config is None else int(config.get("zero_optimization", {}).get("stage", 0))


def _deepspeed_plugin(run: RunSettings) -> DeepSpeedPlugin | None:
    """The recipe's DeepSpeed keys, and those that must agree with ours.

    Micro-batches are planned, not loaded: their number differs from step to step, so DeepSpeed is told one a step and
    each boundary by hand. It clips at 1.0 unless told, and casts nothing unless told.
    """
    if run.deepspeed.config is None:
        return None
    config = {
        **run.deepspeed.config,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": run.optim.max_grad_norm or 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    stage = _zero_stage(run)
    if stage == 3:
        config["zero_optimization"] = {
            **config["zero_optimization"],
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if run.model.dtype == "bfloat16" or run.train.autocast == "bf16":
        config["bf16"] = {"enabled": True}
    return DeepSpeedPlugin(hf_ds_config=config, zero3_init_flag=stage == 3)
