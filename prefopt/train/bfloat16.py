"""bfloat16 weights whose updates are computed in float32.

bfloat16 keeps 8 bits: next to 1 the step from one number to the next is 0.0078 upwards and 0.0039 downwards, so that an
update of 1e-6 rounds to nothing, always. Either the optimiser keeps float32 masters, or the rounding is a draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

AT_ONCE = 2**26
"""Weights whose float32 gradients are held at a time: 256 MiB, or one larger matrix."""


class Float32Updates:
    """An optimiser over bfloat16 weights whose arithmetic and states are float32; float32 weights are left to it as is.

    With masters, 4 bytes more per weight: the weight is its master rounded to nearest. Without: the updated weight is
    rounded up or down at random, with the probabilities that make its expectation exact (`round_stochastically`).
    Drawn from (seed, number of the update), so that a resumed run draws the same and so do the ranks of DDP.

    stand_ins: what the optimiser knows in the place of each weight: a master, or a float32 weight itself. updates: how
    many were made.
    """

    def __init__(
        self,
        parameters: list[Parameter],
        make: Callable[[list[Parameter]], torch.optim.Optimizer],
        *,
        keep_masters: bool,
        seed: int,
    ) -> None:
        """make: the optimiser for a list of float32 parameters that stand for `parameters`, in their order."""
        self._parameters = parameters
        self._keeps_masters = keep_masters
        self._seed = seed
        self.updates = 0
        self.stand_ins = [p if p.dtype != torch.bfloat16 else Parameter(p.detach().float()) for p in parameters]
        self._as_they_are = [p for p in parameters if p.dtype != torch.bfloat16]
        self._low = [(w, m) for w, m in zip(parameters, self.stand_ins, strict=True) if w is not m]
        self.optimizer = make(self.stand_ins)
        if not keep_masters:
            self._release(self._low)

    @property
    def how(self) -> str:
        """How small updates survive, in words."""
        return "with float32 masters" if self._keeps_masters else "rounded stochastically"

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimiser's: where the learning rate is set."""
        return self.optimizer.param_groups

    @torch.no_grad()
    def step(self) -> None:
        """One update of every weight that has a gradient; the gradients are used up.

        Torch's optimisers pass over parameters without a gradient, which is how a part of them is updated at a time.
        """
        self.optimizer.step()  # the masters have no gradient yet
        for parameter in self._as_they_are:
            parameter.grad = None
        seed = int(np.random.SeedSequence([self._seed, self.updates]).generate_state(1, np.uint64)[0])
        generators: dict[torch.device, torch.Generator] = {}
        for part in self._parts():
            for weight, master in part:
                if not self._keeps_masters:
                    master.data = weight.float()
                assert weight.grad is not None
                master.grad = weight.grad.float()
                weight.grad = None
            self.optimizer.step()
            for weight, master in part:
                master.grad = None
                if self._keeps_masters:
                    weight.copy_(master)
                else:
                    if weight.device not in generators:
                        generators[weight.device] = torch.Generator(weight.device).manual_seed(seed)
                    weight.copy_(round_stochastically(master, generators[weight.device]))
            if not self._keeps_masters:
                self._release(part)
        self.updates += 1

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop every gradient."""
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state, the masters where they are kept, and how many updates were drawn for."""
        masters = [m.detach() for _, m in self._low] if self._keeps_masters else []
        return {**self.optimizer.state_dict(), "masters": masters, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of the same weights."""
        self.optimizer.load_state_dict({key: state[key] for key in ("state", "param_groups")})
        self.updates = state["updates"]
        if self._keeps_masters:
            with torch.no_grad():
                for (_, master), saved in zip(self._low, state["masters"], strict=True):
                    master.copy_(saved)

    def _parts(self) -> Iterator[list[tuple[Parameter, Parameter]]]:
        """The bfloat16 weights that have a gradient with their masters, in order, `AT_ONCE` numbers at a time."""
        part: list[tuple[Parameter, Parameter]] = []
        size = 0
        for weight, master in self._low:
            if weight.grad is None:
                continue
            if part and size + weight.numel() > AT_ONCE:
                yield part
                part, size = [], 0
            part.append((weight, master))
            size += weight.numel()
        if part:
            yield part

    def _release(self, part: list[tuple[Parameter, Parameter]]) -> None:
        for _, master in part:
            master.data = master.data.new_empty(0)


def round_stochastically(values: Tensor, generator: torch.Generator) -> Tensor:
    """float32 to bfloat16, up with the probability that is the part of the way already gone: the expectation is exact.

    bfloat16 is the upper half of a float32, so a draw of 16 bits is added to the lower half, which is then cut off.
    What is not finite stays what it is.
    """
    draw = torch.randint(0, 2**16, values.shape, dtype=torch.int32, device=values.device, generator=generator)
    rounded = draw.add_(values.detach().view(torch.int32)).bitwise_and_(-(2**16)).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values).to(torch.bfloat16)
