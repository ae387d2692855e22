"""The schema of `prefopt eval`: what `recipes/eval/eval.yaml` may say. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prefopt.fill import one_of


@dataclass
class EvalSettings:
    """A whole command. `measure` stays a mapping: its `name` says which dataclass it fills.

    out: the folder that is written; null: RUN/eval/NAME-IDENTITY for a run, eval/NAME-IDENTITY else. run: a run folder
    of `prefopt train`; its model, template and reference are taken. model: a model's or adapters' folder or a hub name,
    trained here or not. reference, reward: models for the measures that ask for one. chat_template: as in
    `data.chat_template`. tokens_per_batch: what the device holds at once. resamples: of each bootstrap interval.
    num_processes: on this machine; null: one per GPU, or one on CPU.
    """

    name: str = "eval"
    out: str = ""
    run: str = ""
    model: str = ""
    reference: str = ""
    reward: str = ""
    chat_template: str | None = None
    seed: int = 42
    dtype: str = one_of("float32", "bfloat16")
    device: str = one_of("auto", "cpu", "cuda")
    tokens_per_batch: int = 16384
    resamples: int = 2000
    num_processes: int | None = None
    measure: dict[str, Any] = field(default_factory=dict)
