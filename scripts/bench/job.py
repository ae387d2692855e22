"""What one measured training is told, and what it tells."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple


class Step(NamedTuple):
    """One optimiser step: its loss, wall and CPU (or GPU) seconds, and tokens on the axis, padding included."""

    loss: float
    seconds: float
    processor_seconds: float
    tokens: int


@dataclass(frozen=True)
class Job:
    """One training.

    model: folder. rows: JSONL with prompt, chosen, rejected (for TRL in the order of training). method: dpo, orpo or
    simpo. pairs_per_step, num_steps, lr, threads as said. has_reference: whether the method compares with one.
    overrides: prefopt's command line. peer: keyword arguments of TRL's configuration. dtype: float32 or bf16, the
    autocast of the forward pass. device: cpu or cuda. lora_rank: of adapters over bfloat16 weights; 0: all weights.
    shape, tokens: of the model and of a micro-batch, for the rate of the model's matrix products.
    """

    folder: str
    model: str
    rows: str
    method: str
    pairs_per_step: int
    num_steps: int
    lr: float
    threads: int
    has_reference: bool
    overrides: list[str]
    peer: dict
    dtype: str = "float32"
    device: str = "cpu"
    lora_rank: int = 0
    shape: str = "28m"
    tokens: int = 1024

    @staticmethod
    def read(path: Path) -> Job:
        return Job(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


@dataclass(frozen=True)
class Result:
    """peak: bytes, of the whole process until the last step. reference_seconds: for scoring the reference of all rows
    before training. order: ids of the rows as they were trained on. padding: share of the tokens that was padding.
    matrix_rate: operations a second of the model's own products, in this process right behind the last step; 0 for TRL.
    """

    steps: list[Step]
    peak: int
    reference_seconds: float
    order: list[str]
    padding: float
    matrix_rate: float = 0.0

    @staticmethod
    def read(path: Path) -> Result:
        values = json.loads(path.read_text())
        return Result(**{**values, "steps": [Step(*step) for step in values["steps"]]})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


def train_seconds(stamps: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """(wall, CPU) seconds between the stamps taken at the ends of steps."""
    return [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(stamps)]


def peak_memory() -> int:
    """Bytes: the most this process has held resident; on a GPU the most that was allocated there."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024
