"""What a run has learnt, as parts of flat tensors by the names of weights: the same files for every engine.

Every rank writes the parts that it holds, in parallel and without gathering anything; whoever loads takes the ranges it
needs out of all files, so that another number of ranks or another engine goes on without a conversion.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from prefopt.errors import RunError

WEIGHT = "weight"
"""What the weights themselves are called beside the optimiser's states; float32 masters where there are any."""


class Part(NamedTuple):
    """A stretch of one flattened tensor. what: `WEIGHT`, or the key of an optimiser's state. start: its first place."""

    name: str
    what: str
    start: int
    values: Tensor


@dataclass
class State:
    """A rank's share of what is trained.

    numbers: scalars of the optimiser's state by name of the weight (`step`). shapes: of states that are not one number
    per weight. updates: how many updates drew random numbers, where they do.
    """

    parts: list[Part] = field(default_factory=list)
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)
    shapes: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    updates: int = 0

    def add_optimizer_state(self, name: str, key: str, value: Any, start: int, flat: Tensor | None) -> None:
        """One entry of an optimiser's state. flat: its numbers on this rank, where there is one a weight."""
        if flat is not None:
            self.parts.append(Part(name, key, start, flat))
        elif isinstance(value, Tensor) and value.ndim:
            self.parts.append(Part(name, key, 0, value.flatten()))
            self.shapes.setdefault(name, {})[key] = list(value.shape)
        else:
            self.numbers.setdefault(name, {})[key] = value.item() if isinstance(value, Tensor) else value


def write_parts(state: State, file: Path) -> None:
    """One rank's file; nothing where it holds nothing."""
    tensors = {
        f"{part.what} {part.start} {part.name}": part.values.detach().cpu().contiguous()
        for part in state.parts
        if part.values.numel()
    }
    about = {"numbers": state.numbers, "shapes": state.shapes, "updates": state.updates}
    if tensors:
        save_file(tensors, file, metadata={"about": json.dumps(about)})


class SavedParts:
    """The parts in a folder, whoever wrote them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[tuple[str, str], list[tuple[int, int, Path, str]]] = {}
        self.numbers: dict[str, dict[str, float]] = {}
        self.shapes: dict[str, dict[str, list[int]]] = {}
        self.updates = 0
        for file in sorted(folder.glob("state-*.safetensors")):
            with safe_open(file, framework="pt") as content:
                about = json.loads(content.metadata()["about"])
                for key in content.keys():  # noqa: SIM118 - not a mapping
                    what, start, name = key.split(" ", 2)
                    length = content.get_slice(key).get_shape()[0]
                    place = (int(start), int(start) + length, file, key)
                    self._places.setdefault((name, what), []).append(place)
            self.numbers |= about["numbers"]
            self.shapes |= about["shapes"]
            self.updates = about["updates"]
        if not self._places:
            raise RunError(f"checkpoint {folder} holds no weights", "it was written by another version of prefopt")

    @property
    def names(self) -> set[str]:
        """Of all weights."""
        return {name for name, what in self._places if what == WEIGHT}

    def keys(self, name: str) -> list[str]:
        """Of the tensors that the optimiser keeps for a weight."""
        return sorted(what for owner, what in self._places if owner == name and what != WEIGHT)

    def read(self, name: str, what: str, start: int, stop: int) -> Tensor:
        """The numbers of a stretch, flat, on the CPU.

        Raises: RunError where not all of them are there.
        """
        found: list[Tensor] = []
        place = start
        for first, last, file, key in sorted(self._places.get((name, what), [])):
            if first <= place < min(last, stop):
                with safe_open(file, framework="pt") as content:
                    found.append(content.get_slice(key)[place - first : min(last, stop) - first])
                place = min(last, stop)
        if place < stop:
            raise RunError(f"checkpoint {self._folder}: {what} of {name} ends at {place} and not at {stop}")
        return torch.cat(found) if found else torch.empty(0)

    def check_names(self, own: Iterable[str]) -> None:
        """Raises: RunError where the weights are not those of this run's model."""
        if odd := sorted(self.names ^ set(own)):
            raise RunError(f"checkpoint {self._folder} is of another model: {odd[0]} is only in one of them")
