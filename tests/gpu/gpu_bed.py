"""Engines on a chosen device in one process, and a model with layers wide enough for memory to be seen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
from ragged import RaggedSet, one_step, settings

from prefopt.model.load import load_policy
from prefopt.settings import RunSettings
from prefopt.train.engine import Engine

__all__ = ["GPU", "LongSet", "gpu_run", "gradient_of", "make_engine", "one_step", "save_wide_model", "settings"]

GPU = "cuda"


def gpu_run(dtype: str = "float32") -> RunSettings:
    """A run of the tiny model on the GPU."""
    run = settings("one", dtype=dtype)
    run.launch.device = GPU
    return run


def make_engine(run: RunSettings) -> Engine:
    """An engine on the device that the run names. accelerate keeps one device for a process unless told to forget."""
    AcceleratorState._reset_state(True)
    engine = Engine(run)
    torch.manual_seed(3)
    policy = load_policy(run.model, longest=2048 if run.model.path.endswith("wide") else 64)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:  # they start at zero, where the gradient of A vanishes
                parameter.copy_(torch.linspace(-0.1, 0.1, parameter.numel()).view_as(parameter))
    engine.wrap(policy)
    return engine


def gradient_of(result: dict[str, Any]) -> torch.Tensor:
    """The whole gradient of `one_step` as one float64 vector on the CPU."""
    return torch.cat([result["gradient"][name].double().cpu().flatten() for name in sorted(result["gradient"])])


def save_wide_model(folder: Path) -> Path:
    """25 M parameters in eight layers, with the vocabulary of the ragged rows."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "wide")
    return folder / "wide"


class LongSet(RaggedSet):
    """The ragged rows with every text repeated twenty times: some twelve thousand tokens."""

    def __init__(self, needs: frozenset[str]) -> None:
        super().__init__(needs)
        for row in self.rows:
            row.prompt[:] = row.prompt * 20
            for response in row.responses:
                response[:] = [*response[:-1] * 20, response[-1]]
        self.response_lengths = np.array([len(response) for r in self.rows for response in r.responses])
        self.prompt_lengths = np.array([len(r.prompt) for r in self.rows])
