"""The schema of a run: what `recipes/train.yaml` may say, and what every room is handed.

One dataclass per group. `config.py` composes a run from the recipes and checks across groups; a rank reads the resolved
run.yaml with `load`. Choices that are names are listed in `choices`; the YAML files carry the comment of each key.
"""

from __future__ import annotations

import copy
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from prefopt.errors import UserError, did_you_mean

T = TypeVar("T")


def one_of(default: str, *names: str) -> Any:
    """A string field that takes one of a few names."""
    return field(default=default, metadata={"choices": (default, *names)})


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

    train: list[SourceSettings] = field(default_factory=list)
    eval: dict[str, SourceSettings] = field(default_factory=dict)
    eval_size: float = 0.0
    max_length: int = 2048
    max_prompt_length: int | None = None
    too_long: str = one_of("drop", "truncate_prompt", "truncate_response", "error")
    chat_template: str | None = None
    eos: str = one_of("append", "keep")
    pairs: str = one_of("best_vs_worst", "all", "adjacent", "random")
    min_score_gap: float = 0.0
    margins: list[MarginSettings] = field(default_factory=list)
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
    lora: LoraSettings | None = None

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
    """The loop."""

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


class SettingsError(UserError):
    """A key or a value that the schema refuses. key: the dotted key, by which `config.py` finds its file."""

    def __init__(self, key: str, message: str, hint: str = "") -> None:
        super().__init__(f"{key}: {message}", hint)
        self.key = key


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


def from_mapping(cls: type[T], mapping: Any, where: str = "") -> T:
    """The dataclass `cls` filled from plain dicts, lists and scalars. What is left out keeps its default.

    where: the dotted key of `mapping`, for messages; empty at the top.
    Nothing is converted but int to float. No key may be unknown and no value of another type.

    Raises: SettingsError with the full dotted key and the nearest valid one, or the expected type.
    """
    if not isinstance(mapping, Mapping):
        raise SettingsError(where or "the run", f"expected {_type_name(cls)}, got {_show(mapping)}")
    assert is_dataclass(cls)
    types_of = get_type_hints(cls)
    by_name = {f.name: f for f in fields(cls)}
    values = {}
    for key, value in mapping.items():
        if key not in by_name:
            raise SettingsError(_join(where, key), "there is no such key", did_you_mean(str(key), by_name))
        values[key] = _convert(types_of[key], value, _join(where, key))
        _check_choice(by_name[key], values[key], _join(where, key))
    return cls(**values)


def known_keys(cls: type, where: str = "") -> Iterator[str]:
    """Every dotted key of a dataclass, groups included: "model", "model.path", ..., "model.lora.r".

    Free parts are not listed: names of eval sets, places in lists, a method's settings, DeepSpeed's own keys.
    """
    types_of = get_type_hints(cls)
    for f in fields(cls):
        key = _join(where, f.name)
        yield key
        inner = next((t for t in (types_of[f.name], *get_args(types_of[f.name])) if is_dataclass(t)), None)
        if inner is not None and get_origin(types_of[f.name]) not in (list, dict):
            assert isinstance(inner, type)
            yield from known_keys(inner, key)


def _convert(wanted: Any, value: Any, where: str) -> Any:
    if wanted is Any:
        return copy.deepcopy(value)
    origin, args = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        if value is None and types.NoneType in args:
            return None
        (inner,) = (a for a in args if a is not types.NoneType)
        return _convert(inner, value, where)
    if is_dataclass(wanted):
        assert isinstance(wanted, type)
        return from_mapping(wanted, value, where)
    if origin is list and isinstance(value, (list, tuple)):
        return [_convert(args[0], item, f"{where}.{i}") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(args[1], item, _join(where, key)) for key, item in value.items()}
    if wanted is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise SettingsError(where, f"expected a finite number, got {_show(value)}")
        return float(value)
    # bool is an int to Python, not to a reader of `epochs: true`.
    if origin is None and isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
        return value
    raise SettingsError(where, f"expected {_type_name(wanted)}, got {_show(value)}")


def _check_choice(f: Field[Any], value: Any, where: str) -> None:
    choices = f.metadata.get("choices")
    if choices is not None and value not in choices:
        raise SettingsError(where, f"must be one of {', '.join(choices)}, not {value!r}")


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _show(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    kind = {str: "text", Mapping: "keys and values", list: "a list"}
    name = next((words for type_, words in kind.items() if isinstance(value, type_)), "")
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    return f"{name} {shown}".strip()


def _type_name(wanted: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if wanted in names:
        return names[wanted]
    return "a list" if get_origin(wanted) is list else "keys and values"
