"""What computes: one process, DDP, DeepSpeed or FSDP2, behind the few calls that the step needs.

accelerate starts the process group and wraps the model; the loop is ours. Gradients are those of a sum that the step
has already divided by global counts, so every engine's averaging over ranks is undone by a factor `world_size`. What
differs between engines is in `engine_plain`, `engine_zero` and `engine_fsdp`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor

from prefopt.batch import Batch, Outputs
from prefopt.errors import UserError
from prefopt.model.policy import Policy
from prefopt.settings import RunSettings
from prefopt.train import in_force
from prefopt.train.engine_fsdp import Fsdp
from prefopt.train.engine_plain import Plain
from prefopt.train.engine_zero import Unsplit, Zero, deepspeed_plugin
from prefopt.train.optim import Updates

T = TypeVar("T")


class Engine:
    """One rank's share of the machine.

    rank, world_size: this process among all. device: where its batches go. is_main: whether it writes and prints.
    tokens_per_micro_batch: the budget in force; 0 until it is measured, where the recipe says auto.
    live_reference: a frozen model that the policy is compared with token by token, or None.
    policy: the unwrapped policy. module: the policy as it must be called (DDP- or DeepSpeed-wrapped).
    kind: what differs between engines.
    """

    def __init__(self, run: RunSettings) -> None:
        """Start the process group. Make the policy next (ZeRO-3 shards it as it loads), then call `wrap`.

        Raises: RunError where the world is not the one the launcher planned, or ranks run other code or settings.
        """
        self.run = run
        in_force.check_environment()
        cpu = run.launch.device == "cpu" or not torch.cuda.is_available()
        handlers: list[Any] = [DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)]
        if "RANK" in os.environ:  # with DeepSpeed on CPU, accelerate takes every rank for a world of one unless told
            timeout = timedelta(minutes=run.launch.timeout_minutes)
            handlers.append(InitProcessGroupKwargs(backend=_backend(run, cpu), timeout=timeout))
        elif run.fsdp.is_on and not torch.distributed.is_initialized():  # one process, which FSDP too calls a group
            store = torch.distributed.HashStore()
            torch.distributed.init_process_group(_backend(run, cpu), store=store, rank=0, world_size=1)
        self.accelerator = Accelerator(
            cpu=cpu and run.deepspeed.config is None,
            mixed_precision="bf16" if run.train.autocast == "bf16" else "no",
            deepspeed_plugin=deepspeed_plugin(run),
            kwargs_handlers=handlers,
        )
        self.rank = self.accelerator.process_index
        self.world_size = self.accelerator.num_processes
        self.device = self.accelerator.device
        self.is_main = self.rank == 0
        in_force.check_world(self.world_size)
        in_force.check_ranks(self.gather((socket.gethostname(), in_force.rank_record(run))))
        self.kind: Plain = _kind(run)(self.accelerator, run)
        self.policy: Policy
        self.module: Any
        self.live_reference: Policy | None = None
        stated = run.train.tokens_per_micro_batch
        self.tokens_per_micro_batch: int = 0 if stated == "auto" else stated
        self.optimizer: Updates

    def wrap(self, policy: Policy) -> None:
        """Put the policy under this engine, with an optimiser over its trainable parameters.

        Raises: RunError where what runs is not what the recipe states: engine, optimiser, clipping or precision.
        """
        self.policy = policy
        policy.train()
        if self.zero_stage == 3:
            policy.agree = self.largest
        self.kind.wrap(policy)
        self.module, self.optimizer = self.kind.module, self.kind.optimizer
        wanted = in_force.planned(self.run, self.world_size, self.device.type)
        in_force.check(in_force.read(self.kind, self.world_size, self.device.type), wanted, self.run)

    def __call__(self, batch: Batch, asks: frozenset[str] = frozenset()) -> Outputs:
        """The wrapped policy's forward; a live reference of its own goes along where there is one."""
        return self.module(batch, asks, self.live_reference)

    @property
    def zero_stage(self) -> int | None:
        """ZeRO's stage; None without DeepSpeed."""
        return self.run.deepspeed.stage

    @property
    def arithmetic(self) -> torch.dtype:
        """What the forward pass computes in."""
        is_low = self.accelerator.mixed_precision == "bf16" or self.run.model.dtype == "bfloat16"
        return torch.bfloat16 if is_low else next(self.policy.parameters()).dtype

    @property
    def in_force(self) -> str:
        """One line: what really runs, read from the engine and not from the recipe."""
        return (
            f"{in_force.read(self.kind, self.world_size, self.device.type)},"
            f" autocast {self.accelerator.mixed_precision}, layout {self.policy.layout},"
            f" attention {'of the model' if self.policy.layout == 'padded' else self.policy.kernel}"
        )

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum over ranks; every rank must call."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def largest(self, number: int) -> int:
        """The largest of the ranks' numbers; every rank must call."""
        if self.world_size == 1:
            return number
        found = torch.tensor(number, device=self.device)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return int(found.item())

    def gather(self, value: Any) -> list[Any]:
        """Every rank's object, in order of ranks; every rank must call."""
        if self.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(gathered, value)
        return gathered

    def together(self, work: Callable[[], T]) -> T:
        """What `work` gives on this rank; every rank must call. If it exchanges, it must fail on all ranks or on none.

        Raises: UserError on every rank where it does on any, in the words of the first.
        """
        given, failed = None, None
        try:
            given = work()
        except UserError as error:
            failed = error.message, error.hint, error.exit_code
        for said in self.gather(failed):
            if said is not None:
                raise UserError(*said)
        return cast(T, given)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.accelerator.wait_for_everyone()

    def set_lr(self, lr: float) -> None:
        """The learning rate of the next step, in every group of whatever wraps the optimiser."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[Callable[[Tensor], None]]:
        """Around forward and backward of one micro-batch; yields `backward`. last: of the step."""
        with self.kind.micro_batch(last) as backward:
            yield backward

    def step(self) -> float:
        """Clip, update, clear the gradients; returns the norm before clipping. One that is not finite updates nothing.

        (Under ZeRO the norm is known only after the update; the caller stops before anything is saved.)
        """
        return self.kind.step()

    def discard_gradients(self) -> None:
        """Forget what backward passes left, and give their memory back; not under DeepSpeed, which keeps its own."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def gathered_state(self) -> dict[str, Tensor]:
        """The whole model's tensors by their names in the transformers model; on rank 0 only, empty elsewhere."""
        state = self.kind.gathered_state()
        return {name.removeprefix("model."): tensor for name, tensor in state.items()} if self.is_main else {}

    def close(self) -> None:
        """End the process group; without it good runs sometimes end in an abort."""
        self.accelerator.end_training()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _kind(run: RunSettings) -> type[Plain]:
    if run.deepspeed.stage is not None:
        return Zero if run.deepspeed.stage else Unsplit
    return Fsdp if run.fsdp.is_on else Plain


def _backend(run: RunSettings, cpu: bool) -> str:
    if cpu:
        return "gloo"
    return "cpu:gloo,cuda:nccl" if run.fsdp.cpu_offload else "nccl"
