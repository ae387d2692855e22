"""The schema of `prefopt pairs`: what `recipes/pairs/pairs.yaml` may say. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prefopt.fill import one_of


@dataclass
class PairsSettings:
    """A whole command. `generate`, `score` and `select` stay mappings: their `name` says which dataclass they fill.

    out: the folder that is written; what is there already is not made again. prompts: a data file, as `data.train`
    names one; of rows with responses the prompts are taken. split: for hub data sets. limit: only the first prompts.
    policy: the model that answers, or a list of several, each of which answers every prompt; folders, hub names or
    adapters. reward, reference: models for the stages that ask for one. chat_template: as in `data.chat_template`.
    max_prompt_tokens: longer prompts are left out. avoid: data files whose prompts must not be trained on.
    chunk_size: prompts that are worked on and kept at once. tokens_per_batch: what the device holds at once.
    margins: scores of other objectives, each like `score`, written beside the main one in the order given.
    shard: "K/N" (K from 0): this process does the K-th part; "slurm": as the array job or step says.
    num_processes: on this machine; null: one per GPU, or one on CPU.
    """

    name: str = "pairs"
    out: str = ""
    prompts: str = ""
    split: str = "train"
    limit: int | None = None
    policy: Any = ""
    reward: str = ""
    reference: str = ""
    chat_template: str | None = None
    max_prompt_tokens: int = 1024
    avoid: list[str] = field(default_factory=list)
    seed: int = 42
    dtype: str = one_of("float32", "bfloat16")
    device: str = one_of("auto", "cpu", "cuda")
    chunk_size: int = 64
    tokens_per_batch: int = 16384
    shard: str | None = None
    num_processes: int | None = None
    generate: dict[str, Any] = field(default_factory=dict)
    score: dict[str, Any] = field(default_factory=dict)
    margins: list[dict[str, Any]] = field(default_factory=list, metadata={"example": "[{name: length}]"})
    select: dict[str, Any] = field(default_factory=dict)

    @property
    def policies(self) -> list[str]:
        """The models that answer."""
        return list(self.policy) if isinstance(self.policy, list) else [self.policy] if self.policy else []
