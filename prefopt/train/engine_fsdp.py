"""FSDP2: weights, gradients and optimiser states split over the ranks, layer by layer.

torch's own call, the one that accelerate makes. accelerate makes it for GPUs only, runs plain DDP elsewhere without a
word, and wants an optimiser that was made before the weights were split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import Module, Parameter

from prefopt.errors import UserError
from prefopt.model.policy import Policy
from prefopt.train.engine_plain import Plain, trainable
from prefopt.train.parts import SavedParts, State


class Fsdp(Plain):
    """Weights split over the ranks by rows; each layer is gathered while it computes."""

    splits_weights = True
    exchanges_in_forward = True

    def wrap(self, policy: Policy) -> None:
        """Split the policy; shards of trained bfloat16 weights are float32, and only what is gathered is bfloat16."""
        self.policy = policy
        self._saved_as = {name: p.dtype for name, p in policy.named_parameters()}
        comes_low = any(p.dtype == torch.bfloat16 for p in trainable(policy).values())
        computes_low = comes_low or self.accelerator.mixed_precision == "bf16"
        how: dict[str, Any] = {
            "mesh": init_device_mesh(self.accelerator.device.type, (self.accelerator.num_processes,)),
            # A batch's columns are float64 and must stay so.
            "mp_policy": MixedPrecisionPolicy(
                param_dtype=torch.bfloat16 if computes_low else None,
                reduce_dtype=torch.float32,
                cast_forward_inputs=False,
            ),
            "offload_policy": CPUOffloadPolicy() if self.run.fsdp.cpu_offload else OffloadPolicy(),
        }
        self._computes_low = computes_low
        names = set(policy.pretrained._no_split_modules or ())
        layers = [module for module in policy.modules() if type(module).__name__ in names]
        if not layers:
            kind = policy.pretrained.config.model_type
            raise UserError(f"fsdp=full_shard: transformers names no layers of {kind} to split", "deepspeed=zero3")
        for layer in layers:  # one by one: no rank ever holds the whole in float32
            self._fill(layer)
            fully_shard(layer, reshard_after_forward=self.run.fsdp.reshard_after_forward, **how)
        self._fill(policy)
        # Embeddings and head stay gathered up to the end of the backward pass, where the head's chunks run again.
        fully_shard(policy, reshard_after_forward=False, **how)
        self.module = policy
        self._make_updates()

    @property
    def reads_weights(self) -> bool:
        """One process of a machine; `wrap` gives the others the first one's."""
        return self.accelerator.is_local_main_process

    def _fill(self, module: Module) -> None:
        """The first rank's tensors for those of a module that are not split yet; trained bfloat16 ones become float32.
        Every rank must call."""
        device = self.accelerator.device
        stored = module.state_dict(keep_vars=True).values()
        for tensor in {id(t): t for t in stored if not isinstance(t, DTensor)}.values():  # tied weights once
            whole = torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.detach().to(device)
            torch.distributed.broadcast(whole, src=0)
            if tensor.requires_grad and whole.dtype == torch.bfloat16:
                whole = whole.float()
            kept = Parameter(whole, tensor.requires_grad) if isinstance(tensor, Parameter) else whole
            torch.utils.swap_tensors(tensor, kept)

    @property
    def name(self) -> str:
        """FSDP2 where every weight is really split."""
        self._give_back()
        is_split = all(isinstance(p, DTensor) for p in self.policy.parameters())
        return "FSDP2" if is_split and isinstance(self.policy, FSDPModule) else "FSDP2 without split weights"

    @property
    def weights(self) -> str:
        """What the shards are held in, and what they are gathered as."""
        held = f"{str(next(iter(trainable(self.policy).values())).dtype).removeprefix('torch.')} shards"
        return f"{held} gathered as bfloat16" if self._computes_low else held

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[Callable[[Tensor], None]]:
        """Ranks exchange gradients in every micro-batch: whole ones, kept up to the last, would fill the memory."""
        yield Tensor.backward

    def clip(self) -> float:
        """Scale the gradients by the norm over all ranks, float32 or better."""
        shards = [cast(DTensor, p.grad).to_local() for p in trainable(self.policy).values() if p.grad is not None]
        norms = [torch.linalg.vector_norm(shard, dtype=torch.float64) for shard in shards]
        total = torch.stack(norms).square().sum().to(self.accelerator.device)
        torch.distributed.all_reduce(total)
        norm = total.sqrt().item()
        most = self.run.optim.max_grad_norm
        if most is not None and norm > most:
            torch._foreach_mul_(shards, most / (norm + 1e-6))  # as torch.nn.utils.clip_grad_norm_ does
        return norm

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """Embeddings and head gathered, where the policy's own forward, which gathers them, is not what is called."""
        cast(FSDPModule, self.policy).unshard()
        try:
            yield
        finally:
            self._give_back()

    def gathered_state(self) -> dict[str, Tensor]:
        """One tensor after the other; only the main rank keeps them, in the precision that the model came in."""
        self._give_back()
        found: dict[str, Tensor] = {}
        gathered: dict[int, Tensor] = {}
        for name, tensor in self.policy.state_dict(keep_vars=True).items():
            if id(tensor) not in gathered:  # tied weights stay one
                whole = tensor.detach()
                if isinstance(whole, DTensor):
                    whole = whole.full_tensor()
                if self.accelerator.is_main_process:
                    gathered[id(tensor)] = whole.to("cpu", self._saved_as.get(name, whole.dtype))
                else:
                    gathered[id(tensor)] = whole.new_empty(0)
            found[name] = gathered[id(tensor)]
        return found if self.accelerator.is_main_process else {}

    def state(self) -> State:
        """This rank's shards of what a checkpoint keeps."""
        self._give_back()
        return super().state()

    def restore(self, saved: SavedParts, with_optimizer: bool) -> None:
        """Go on from a checkpoint of whatever engine; every rank must call."""
        self._give_back()
        super().restore(saved, with_optimizer)

    def _give_back(self) -> None:
        """Drop what a forward pass without a backward pass left gathered."""
        for module in self.policy.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def _local(self, tensor: Tensor) -> Tensor:
        return cast(DTensor, tensor.detach()).to_local()

    def _start(self, weight: Parameter) -> int:
        """Rows are dealt in equal chunks, the last ones shorter or empty."""
        rows = weight.shape[0]
        chunk = -(-rows // self.accelerator.num_processes)
        return min(self.accelerator.process_index * chunk, rows) * (weight.numel() // max(1, rows))

    def _like(self, weight: Parameter, local: Tensor) -> Tensor:
        split = cast(DTensor, weight)
        return DTensor.from_local(
            local.to(split.to_local().device),
            split.device_mesh,
            split.placements,
            run_check=False,
            shape=split.shape,
            stride=split.stride(),
        )
