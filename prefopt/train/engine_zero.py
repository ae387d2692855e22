"""DeepSpeed, ZeRO stages 0 to 3, with or without offload to the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from accelerate import DeepSpeedPlugin
from accelerate.utils import DistributedType
from torch import Tensor
from torch.nn import Parameter

from prefopt.engine_settings import zero_name
from prefopt.errors import RunError
from prefopt.model.policy import Policy
from prefopt.settings import RunSettings
from prefopt.train.engine_plain import Plain, trainable
from prefopt.train.optim import clip_gradients, make_optimizer
from prefopt.train.parts import WEIGHT, Part, SavedParts, State


class Unsplit(Plain):
    """ZeRO-0: DeepSpeed's loop around whole weights and a plain optimiser. It tells no norm, so we take our own."""

    exchanges_in_forward = True  # its engine counts forward and backward passes, which must be the same on all ranks

    def wrap(self, policy: Policy) -> None:
        """Put the policy under DeepSpeed.

        Raises: RunError where accelerate took another road.
        """
        self.policy = policy
        own = make_optimizer(list(trainable(policy).values()), self.run.optim)
        self.module, self.optimizer = self.accelerator.prepare(policy, own)
        if self.accelerator.distributed_type is not DistributedType.DEEPSPEED:
            raise RunError(
                f"the recipe asks for DeepSpeed but accelerate runs {self.accelerator.distributed_type.value}",
                "unset ACCELERATE_USE_CPU and start the run with `prefopt train`",
            )

    @property
    def name(self) -> str:
        """The stage that DeepSpeed runs, and what it keeps on the host."""
        stage = self.module.zero_optimization_stage() if self.module.zero_optimization() else 0
        offloads = {"optimizer": self.module.zero_offload_optimizer(), "param": self.module.zero_offload_param()}
        return zero_name(stage, [what for what, said in offloads.items() if said and said.device == "cpu"])

    @property
    def inner(self) -> Any:
        """The optimiser that computes the updates."""
        return getattr(self.module.optimizer, "optimizer", self.module.optimizer)

    @property
    def clipping(self) -> float | None:
        """The norm that DeepSpeed scales gradients down to."""
        return self.module.gradient_clipping() or None

    @property
    def weights(self) -> str:
        """What the weights are held in; DeepSpeed keeps float32 masters of bfloat16 ones."""
        dtype = str(next(iter(trainable(self.policy).values())).dtype).removeprefix("torch.")
        return f"{dtype} weights with float32 masters" if dtype == "bfloat16" else f"{dtype} weights"

    @property
    def gradients(self) -> str:
        """What gradients are added up in."""
        return str(self.module.communication_data_type).removeprefix("torch.")

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[Callable[[Tensor], None]]:
        """Around one micro-batch: DeepSpeed is told by hand which is the last of a step."""
        self.module.set_gradient_accumulation_boundary(last)
        yield self.module.backward

    def step(self) -> float:
        """DeepSpeed's update; one whose norm is not finite is left out."""
        norm = clip_gradients(list(trainable(self.policy).values()), None)
        if isfinite(norm):
            self.module.step()
        return norm


class Zero(Unsplit):
    """ZeRO 1, 2 and 3: float32 weights and optimiser states in flat partitions, one a rank."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.splits_weights = self.run.deepspeed.stage == 3

    def step(self) -> float:
        """DeepSpeed's update and the norm before clipping, known afterwards; the caller stops before anything is saved.

        Raises: RunError where DeepSpeed tells no norm, by which a step is judged.
        """
        self.module.step()
        norm = self.module.get_global_grad_norm()
        if norm is None:
            raise RunError(f"{self.name} tells no norm of the gradient", "leave compute_grad_norm out")
        return float(norm)

    def state(self) -> State:
        """This rank's partitions, cut by weights."""
        found = State()
        for name, parameter in trainable(self.policy).items():
            flat, place, start, length = self._place(parameter)
            if flat is None or not length:
                continue
            found.parts.append(Part(name, WEIGHT, start, flat[place : place + length]))
            for key, value in self.inner.state.get(flat, {}).items():
                is_by_weight = isinstance(value, Tensor) and value.ndim > 0
                part = value[place : place + length] if is_by_weight else None
                found.add_optimizer_state(name, key, value, start, part)
        return found

    @torch.no_grad()
    def restore(self, saved: SavedParts, with_optimizer: bool) -> None:
        """Go on from a checkpoint of whatever engine; every rank must call."""
        own = trainable(self.policy)
        saved.check_names(own)
        zero = self.module.optimizer
        if self.splits_weights:
            zero.checkpoint_event_prologue()
        for name, parameter in own.items():
            flat, place, start, length = self._place(parameter)
            if flat is not None and length:
                flat[place : place + length].copy_(saved.read(name, WEIGHT, start, start + length))
                if with_optimizer:
                    self._restore_states(saved, name, flat, place, start, length)
            if not self.splits_weights:
                whole = saved.read(name, WEIGHT, 0, parameter.numel())
                parameter.data.copy_(whole.view(parameter.shape))
            elif length:
                partition: Any = parameter
                partition.ds_tensor.data[:length].copy_(flat[place : place + length])
        if self.splits_weights:
            zero.checkpoint_event_epilogue()

    def _restore_states(self, saved: SavedParts, name: str, flat: Tensor, place: int, start: int, length: int) -> None:
        kept: Any = self.inner.state[flat]
        for key in saved.keys(name):
            if key not in kept:
                kept[key] = torch.zeros_like(flat)
            kept[key][place : place + length].copy_(saved.read(name, key, start, start + length))
        for key, number in saved.numbers.get(name, {}).items():
            kept[key] = torch.tensor(number, dtype=torch.float32, device=flat.device)

    def _place(self, parameter: Parameter) -> tuple[Any, int, int, int]:
        """This rank's flat float32 partition with numbers of `parameter`, where in it they begin, where in the
        flattened parameter, and how many they are; no partition where there are none."""
        zero, known = self.module.optimizer, vars(parameter)
        if self.splits_weights:
            group, place, length = zero.grad_position[zero.get_param_id(parameter)]
            start = self.accelerator.process_index * length
            return (
                zero.fp32_partitioned_groups_flat[group],
                place,
                start,
                max(0, min(length, known["ds_numel"] - start)),
            )
        mapping = known.get("_hp_mapping")
        if mapping is None:
            return None, 0, 0, 0
        flat = zero.single_partition_of_fp32_groups[mapping.param_group_index]
        inside, of_whole = mapping.hp_fragment_address, mapping.lp_fragment_address
        return flat, inside.start, of_whole.start, of_whole.numel


def deepspeed_plugin(run: RunSettings) -> DeepSpeedPlugin | None:
    """The recipe's DeepSpeed keys, and those that must agree with ours.

    Micro-batches are planned, not loaded: their number differs from step to step, so DeepSpeed is told one a step and
    each boundary by hand. It clips at 1.0 unless told, casts nothing unless told, and an optimiser that is offloaded
    would become an Adam of its own.
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
    if run.deepspeed.stage == 3:
        config["zero_optimization"] = {
            **config["zero_optimization"],
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if run.model.dtype == "bfloat16" or run.train.autocast == "bf16":
        config["bf16"] = {"enabled": True}
    return DeepSpeedPlugin(hf_ds_config=config, zero3_init_flag=run.deepspeed.stage == 3)
