"""One process, or DDP: every rank holds everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import Parameter

from prefopt.model.policy import Policy
from prefopt.settings import RunSettings
from prefopt.train.bfloat16 import Float32Updates
from prefopt.train.optim import Updates, clip_gradients, make_updates
from prefopt.train.parts import WEIGHT, Part, SavedParts, State


def trainable(policy: Policy) -> dict[str, Parameter]:
    """What is trained, by name."""
    return {name: p for name, p in policy.named_parameters() if p.requires_grad}


class Plain:
    """One process or DDP, by accelerate; also what other engines fall back on.

    splits_weights: whether a rank holds a part of each weight only. exchanges_in_forward: whether ranks meet inside a
    forward pass, so that none may leave one out.
    """

    splits_weights = False
    exchanges_in_forward = False

    def __init__(self, accelerator: Accelerator, run: RunSettings) -> None:
        self.accelerator = accelerator
        self.run = run
        self.policy: Policy
        self.module: Any
        self.optimizer: Updates

    @property
    def reads_weights(self) -> bool:
        """Whether this rank reads the policy's weights; if not, `wrap` takes a policy that was loaded without them."""
        return True

    def wrap(self, policy: Policy) -> None:
        """Put the policy under the engine, with an optimiser over what is trained."""
        self.policy = policy
        self.module = self.accelerator.prepare(policy)  # masters are made where the weights have gone
        self._make_updates()

    def _make_updates(self) -> None:
        self.optimizer = make_updates(list(trainable(self.policy).values()), self.run.optim, self.run.train.seed)

    @property
    def name(self) -> str:
        """What runs, read from what runs."""
        return "DDP" if isinstance(self.module, torch.nn.parallel.DistributedDataParallel) else "one process"

    @property
    def inner(self) -> Any:
        """The optimiser that computes the updates."""
        return self.optimizer.optimizer if isinstance(self.optimizer, Float32Updates) else self.optimizer

    @property
    def clipping(self) -> float | None:
        """The norm that gradients are scaled down to."""
        return self.run.optim.max_grad_norm

    @property
    def weights(self) -> str:
        """What the weights are held in, and how those of 8 bits of precision take updates that they cannot hold."""
        held = f"{_plain_name(next(self.policy.parameters()).dtype)} weights"
        if not any(p.dtype == torch.bfloat16 for p in trainable(self.policy).values()):
            return held
        if isinstance(self.optimizer, Float32Updates):
            return f"{held} {self.optimizer.how}"
        return f"{held} rounded to nearest, which loses updates below their precision"

    @property
    def gradients(self) -> str:
        """What gradients are added up in."""
        return _plain_name(next(iter(trainable(self.policy).values())).dtype)

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[Callable[[Tensor], None]]:
        """Around forward and backward of one micro-batch; yields `backward`. Ranks exchange gradients at the last."""
        if not last and self.accelerator.num_processes > 1:
            with self.module.no_sync():
                yield Tensor.backward
        else:
            yield Tensor.backward

    def clip(self) -> float:
        """Scale the gradients; returns the norm of all before."""
        return clip_gradients(list(trainable(self.policy).values()), self.run.optim.max_grad_norm)

    def step(self) -> float:
        """Clip, update, clear the gradients; returns the norm before. One that is not finite updates nothing."""
        norm = self.clip()
        if isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """Around calls of parts of the policy, which the engine would not notice."""
        yield

    def gathered_state(self) -> dict[str, Tensor]:
        """The policy's whole tensors by name; on the main rank at least."""
        return self.accelerator.get_state_dict(self.module) or {}

    def state(self) -> State:
        """This rank's share of what a checkpoint keeps; the main rank speaks for all that hold the same."""
        found = State()
        if not (self.splits_weights or self.accelerator.is_main_process):
            return found
        for name, weight, known in self._known():
            kept = self.inner.state.get(known, {})
            start = self._start(weight)
            found.parts.append(Part(name, WEIGHT, start, self._local(known if known.numel() else weight).flatten()))
            for key, value in kept.items():
                is_by_weight = isinstance(value, Tensor) and value.ndim > 0 and value.shape == weight.shape
                flat = self._local(value).flatten() if is_by_weight else None
                found.add_optimizer_state(name, key, value, start, flat)
        if isinstance(self.optimizer, Float32Updates):
            found.updates = self.optimizer.updates
        return found

    @torch.no_grad()
    def restore(self, saved: SavedParts, with_optimizer: bool) -> None:
        """Go on from a checkpoint of whatever engine; every rank must call."""
        known_by_name = {name: (weight, known) for name, weight, known in self._known()}
        saved.check_names(known_by_name)
        for name, (weight, known) in known_by_name.items():
            for held in {id(t): t for t in (weight, known) if t.numel()}.values():
                self._local(held).copy_(self._read(saved, name, WEIGHT, weight))
        if not with_optimizer:
            return
        states = {known: self._saved_state(saved, name, weight) for name, (weight, known) in known_by_name.items()}
        ordered = [p for group in self.inner.param_groups for p in group["params"]]
        kept = {place: states[p] for place, p in enumerate(ordered) if states[p]}
        self.inner.load_state_dict({"state": kept, "param_groups": self.inner.state_dict()["param_groups"]})
        if isinstance(self.optimizer, Float32Updates):
            self.optimizer.updates = saved.updates

    def _known(self) -> list[tuple[str, Parameter, Parameter]]:
        """Name, weight, and the parameter that the optimiser knows in its place."""
        own = trainable(self.policy)
        stand_ins = self.optimizer.stand_ins if isinstance(self.optimizer, Float32Updates) else list(own.values())
        return [(name, weight, known) for (name, weight), known in zip(own.items(), stand_ins, strict=True)]

    def _read(self, saved: SavedParts, name: str, what: str, weight: Parameter) -> Tensor:
        start, local = self._start(weight), self._local(weight)
        return saved.read(name, what, start, start + local.numel()).view(local.shape)

    def _saved_state(self, saved: SavedParts, name: str, weight: Parameter) -> dict[str, Any]:
        """What the optimiser kept for a weight, laid out as this engine does."""
        found: dict[str, Any] = {key: _as_kept(number) for key, number in saved.numbers.get(name, {}).items()}
        for key in saved.keys(name):
            if key in saved.shapes.get(name, {}):
                found[key] = self._whole_shape(saved, name, key)
            else:
                found[key] = self._like(weight, self._read(saved, name, key, weight))
        return found

    def _whole_shape(self, saved: SavedParts, name: str, key: str) -> Tensor:
        shape = torch.Size(saved.shapes[name][key])
        return saved.read(name, key, 0, shape.numel()).view(shape)

    def _local(self, tensor: Tensor) -> Tensor:
        """This rank's numbers of a tensor."""
        return tensor.detach()

    def _start(self, weight: Parameter) -> int:
        """Where they begin in the flattened whole."""
        return 0

    def _like(self, weight: Parameter, local: Tensor) -> Tensor:
        """A tensor laid out over the ranks as `weight` is."""
        return local


def _as_kept(number: float) -> Any:
    """torch counts steps in tensors, bitsandbytes in whole numbers."""
    return torch.tensor(number, dtype=torch.float32) if isinstance(number, float) else number


def _plain_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
