"""The schema of a run: what `recipes/train.yaml` may say, and what every room is handed.

One dataclass per group; those of engines are in `engine_settings.py`. `config.py` composes a run from the recipes and
checks across groups; a rank reads run.yaml with `load`. Choices that are names are listed in `choices`; the
YAML files carry the comment of each key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefopt.engine_settings import DeepSpeedSettings, FsdpSettings, zero_name
from prefopt.errors import UserError
from prefopt.fill import SettingsError, from_mapping, one_of


@dataclass
class SourceSettings:
    """One place that rows come from.

    path: a .jsonl, .json, .parquet or .csv file (also .gz), a folder saved by `datasets`, a hub name, or
    `demo://NAME/FILE`.
    format: how rows are read; `auto` recognises it and says what it saw. See `prefopt/data/formats.py`.
    split, name: for hub data sets: the split and the configuration. weight: times each row is seen in an epoch; 0.5
    means a fresh random half each epoch. limit: take only the first rows.
    """

    path: str = ""
    format: str = "auto"
    split: str = "train"
    name: str | None = None
    weight: float = 1.0
    limit: int | None = None


@dataclass
class MarginSettings:
    """Where the rewards of one other objective come from, one number per response.

    kind: `column` reads them from the data: columns NAME_chosen and NAME_rejected, or NAME, a list as long as the
    responses. `length` is minus the tokens of the response. `implicit` is beta times the log-ratio of the model (or
    adapters) at `path` to the reference. `reward` is what the reward model at `path` gives.
    name: of a column. path: a model folder or hub name. beta: reward per nat, of `implicit`.
    """

    kind: str = one_of("column", "length", "implicit", "reward")
    name: str | None = None
    path: str | None = None
    beta: float = 0.1


@dataclass
class DataSettings:
    """What is trained and judged on. Lengths are in tokens."""

    train: list[SourceSettings] = field(default_factory=list, metadata={"example": "[{path: FILE}]"})
    eval: dict[str, SourceSettings] = field(default_factory=dict, metadata={"example": "{heldout: {path: FILE}}"})
    eval_size: float = 0.0
    max_length: int = 2048
    max_prompt_length: int | None = None
    too_long: str = one_of("drop", "truncate_prompt", "truncate_response", "error")
    chat_template: str | None = None
    eos: str = one_of("append", "keep")
    pairs: str = one_of("best_vs_worst", "all", "adjacent", "random")
    min_score_gap: float = 0.0
    margins: list[MarginSettings] = field(default_factory=list, metadata={"example": "[{kind: length}]"})
    max_drop_fraction: float = 0.05
    num_workers: int | None = None
    cache_dir: str | None = None


@dataclass
class LoraSettings:
    """Low-rank adapters (peft). target_modules: "all-linear" or a list of module names.

    base: how the frozen weights under them are held: plain (as model.dtype says), or in 4 or 8 bits.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: Any = "all-linear"
    base: str = one_of("plain", "nf4", "int8")


@dataclass
class ModelSettings:
    """Which model is trained, against which reference, and how it is held in memory."""

    path: str = ""
    revision: str | None = None
    tokenizer: str | None = None
    reference: str | None = None
    dtype: str = one_of("float32", "bfloat16")
    layout: str = one_of("auto", "shared", "packed", "padded")
    attention: str = one_of("auto", "segments", "flex")
    checkpoint_every: int | None = None
    offload_activations: bool = False
    lora: LoraSettings | None = field(default=None, metadata={"example": "{r: 16}"})

    @property
    def base(self) -> str:
        """How the weights that adapters are put on are held; plain without adapters."""
        return "plain" if self.lora is None else self.lora.base


@dataclass
class OptimSettings:
    """The optimiser and its schedule."""

    name: str = one_of("adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "rmsprop")
    lr: float = 1e-6
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    weight_decay: float = 0.0
    bfloat16_weights: str = one_of("masters", "stochastic", "nearest")
    schedule: str = one_of("cosine", "linear", "constant", "inverse_sqrt")
    warmup_ratio: float = 0.1
    max_grad_norm: float | None = 1.0


@dataclass
class TrainSettings:
    """The loop.

    on_nonfinite: what a log-probability, a loss value or a gradient that is not finite does: stop ends the run,
    skip_step leaves that step out, max_skipped_steps times at most.
    """

    batch_size: int = 128
    epochs: float = 1.0
    max_steps: int | None = None
    tokens_per_micro_batch: Any = 8192
    autocast: str = one_of("none", "bf16")
    seed: int = 42
    log_every: int = 1
    eval_every: Any = "epoch"
    save_every: Any = "epoch"
    keep_checkpoints: int = 2
    best_metric: str | None = None
    early_stop_patience: int | None = None
    on_nonfinite: str = one_of("stop", "skip_step")
    max_skipped_steps: int = 5
    deterministic: bool = True


@dataclass
class SampleSettings:
    """Answers to held-out prompts before and after training, written to samples.jsonl. count 0: none.

    every: "never", or every so many steps besides, to see whether the model collapses; see `prefopt/train/collapse.py`.
    on_collapse: what happens where a limit is passed. max_repetition: of answers, a share. max_drift: how far the
    chosen responses may fall, nats per token.
    """

    count: int = 0
    every: Any = "never"
    on_collapse: str = one_of("warn", "stop")
    max_repetition: float = 0.5
    max_drift: float = 1.0
    max_new_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0


@dataclass
class LaunchSettings:
    """Where it runs. num_processes: over all nodes; null means one per GPU of every node, or one per node on CPU.

    num_nodes, node_rank, rendezvous: null means what SLURM's environment says, else a single node. rendezvous:
    HOST:PORT of node 0. timeout_minutes: how long nodes and ranks wait for each other.
    """

    device: str = one_of("auto", "cpu", "cuda")
    num_processes: int | None = None
    num_nodes: int | None = None
    node_rank: int | None = None
    rendezvous: str | None = None
    gpus_per_node: int | None = None
    threads_per_process: int | None = None
    timeout_minutes: float = 30.0


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
    fsdp: FsdpSettings = field(default_factory=FsdpSettings)
    tracker: TrackerSettings = field(default_factory=TrackerSettings)

    @property
    def engine(self) -> str:
        """What trains, as messages and the manifest call it."""
        if self.deepspeed.config is None:
            return "FSDP2" if self.fsdp.is_on else "DDP"
        offloaded = [what for what in ("optimizer", "param") if self.deepspeed.offload_device(what) == "cpu"]
        return zero_name(self.deepspeed.stage or 0, offloaded)


def load(path: str | Path) -> RunSettings:
    """The run that a run.yaml describes.

    Raises: UserError where the file is missing, is not YAML, or says something that the schema refuses.
    """
    import yaml

    try:
        mapping = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    try:
        return from_mapping(RunSettings, mapping)
    except SettingsError as error:
        raise UserError(f"{path}: {error.message}", error.hint) from None
