"""The schema of a run: what `recipes/train.yaml` may say, and what every room is handed.

One dataclass per group. `config.py` fills them from YAML and checks across groups; nothing below it reads YAML.
Choices that are names are listed in `choices`; the YAML files carry the comment of each key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def one_of(default: str, *names: str) -> Any:
    """A string field that takes one of a few names."""
    return field(default=default, metadata={"choices": (default, *names)})


@dataclass
class SourceSettings:
    """One place that rows come from.

    path: a .jsonl, .json, .parquet or .csv file (also .gz), a folder saved by `datasets`, a hub name, or `demo://NAME/FILE`.
    format: how rows are read; `auto` recognises it and says what it saw. See `prefopt/data/formats.py`.
    split, name: for hub data sets: the split and the configuration. weight: times each row is seen in an epoch; 0.5 means
    a fresh random half each epoch. limit: take only the first rows.
    """

    path: str = ""
    format: str = "auto"
    split: str = "train"
    name: str | None = None
    weight: float = 1.0
    limit: int | None = None


@dataclass
class DataSettings:
    """What is trained and judged on. Lengths are in tokens."""

    train: list[SourceSettings] = field(default_factory=list)
    eval: dict[str, SourceSettings] = field(default_factory=dict)
    eval_size: float = 0.0
    max_length: int = 2048
    max_prompt_length: int | None = None
    too_long: str = one_of("drop", "truncate_prompt", "truncate_response", "error")
    chat_template: str | None = None
    eos: str = one_of("append", "keep")
    pairs: str = one_of("best_vs_worst", "all")
    max_drop_fraction: float = 0.05
    num_workers: int | None = None
    cache_dir: str | None = None


@dataclass
class LoraSettings:
    """Low-rank adapters (peft). target_modules: "all-linear" or a list of module names."""

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: Any = "all-linear"


@dataclass
class ModelSettings:
    """Which model is trained, against which reference, and how it is held in memory."""

    path: str = ""
    revision: str | None = None
    tokenizer: str | None = None
    reference: str | None = None
    dtype: str = one_of("float32", "bfloat16")
    layout: str = one_of("auto", "shared", "packed", "padded")
    gradient_checkpointing: bool = False
    lora: LoraSettings | None = None


@dataclass
class OptimSettings:
    """The optimiser and its schedule."""

    name: str = one_of("adamw")
    lr: float = 1e-6
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    weight_decay: float = 0.0
    schedule: str = one_of("cosine", "linear", "constant", "inverse_sqrt")
    warmup_ratio: float = 0.1
    max_grad_norm: float | None = 1.0


@dataclass
class TrainSettings:
    """The loop."""

    batch_size: int = 128
    epochs: float = 1.0
    max_steps: int | None = None
    tokens_per_micro_batch: int = 8192
    autocast: str = one_of("none", "bf16")
    seed: int = 42
    log_every: int = 1
    eval_every: Any = "epoch"
    save_every: Any = "epoch"
    keep_checkpoints: int = 2
    best_metric: str | None = None
    early_stop_patience: int | None = None
    deterministic: bool = True


@dataclass
class SampleSettings:
    """Answers to held-out prompts before and after training, written to samples.jsonl. count 0: none."""

    count: int = 0
    max_new_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0


@dataclass
class LaunchSettings:
    """Where it runs. num_processes: null means one per visible GPU, or one on CPU."""

    device: str = one_of("auto", "cpu", "cuda")
    num_processes: int | None = None
    threads_per_process: int | None = None


@dataclass
class DeepSpeedSettings:
    """DeepSpeed's own configuration, passed through; null: no DeepSpeed."""

    config: dict[str, Any] | None = None


@dataclass
class TrackerSettings:
    """An experiment tracker besides metrics.jsonl, which is always written."""

    name: str = one_of("none", "tensorboard", "wandb", "mlflow", "trackio")
    project: str = "prefopt"


@dataclass
class RunSettings:
    """A whole run. `loss` stays a mapping: its `name` says which dataclass of `prefopt.losses` it fills."""

    name: str = "run"
    dir: str = ""
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    loss: dict[str, Any] = field(default_factory=dict)
    optim: OptimSettings = field(default_factory=OptimSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    sample: SampleSettings = field(default_factory=SampleSettings)
    launch: LaunchSettings = field(default_factory=LaunchSettings)
    deepspeed: DeepSpeedSettings = field(default_factory=DeepSpeedSettings)
    tracker: TrackerSettings = field(default_factory=TrackerSettings)
