"""A model's sizes: counted on the model itself, built without memory, from a config.json or what is published of it."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt.errors import UserError, did_you_mean
from prefopt.model.files import no_whole_model
from prefopt.model_check import local_folder
from prefopt.plan.published import MODELS
from prefopt.settings import ModelSettings

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Shape:
    """Sizes of a model with its adapters.

    source: where the sizes come from. family: transformers' name. hidden, inner, layers, heads, key_heads, head_size,
    vocabulary: as everybody calls them. is_gated: the MLP has a gate. num_norms: norms of a layer over hidden states.
    total, trainable: parameters. base: those without adapters. in_layers: elements of the linear maps of all layers, of
    experts those that a token sees, adapters left out; adapters: elements of those.
    widest: elements of the largest single matrix, head and embedding included. layer: all elements of one layer.
    trainable_shapes: of every trained tensor. adapted: name, inputs and outputs of each linear map of one layer that
    has adapters; rank: theirs. normalises_heads: queries and keys have norms of their own. has_scalar_head: a reward
    model.
    """

    source: str
    family: str
    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    is_gated: bool
    num_norms: int
    total: int
    trainable: int
    in_layers: int
    adapters: int
    widest: int
    layer: int
    trainable_shapes: tuple[tuple[int, ...], ...]
    adapted: tuple[tuple[str, int, int], ...]
    rank: int
    normalises_heads: bool
    has_scalar_head: bool

    @property
    def base(self) -> int:
        """Parameters without adapters."""
        return self.total - self.adapters


def model_shape(settings: ModelSettings, has_scalar_head: bool = False) -> Shape:
    """The sizes of the model that `settings` names, adapters on it where they are asked for.

    Raises: UserError where nothing is known of the model.
    """
    config, source = find_config(settings.path, settings.revision)
    return shape_of(config, settings, source, has_scalar_head)


def find_config(path: str, revision: str | None = None) -> tuple[dict[str, Any], str]:
    """config.json of a model and where it was found: a folder, the hub's cache, the table, the hub, in this order.

    Raises: UserError where none of them has it.
    """
    folder = local_folder("model.path", path)
    if folder is not None:
        file = folder / "config.json"
        if not file.is_file():
            raise no_whole_model(folder, path)
        return _read(file), f"{file}"
    cached = _in_cache(path, revision)
    if cached is not None:
        return _read(cached), "config.json of the local hub cache"
    if path in MODELS:
        return MODELS[path], "published config.json, from prefopt's table"
    downloaded = _download(path, revision)
    if downloaded is None:
        near = did_you_mean(path, MODELS) if path.count("/") == 1 else ""
        raise UserError(
            f"model.path: nothing is known of {path}: it is no folder, not in the local hub cache, not in the table of"
            " published shapes, and the hub does not give it",
            near if near.startswith("did you mean") else "give a folder that holds its config.json",
        )
    return _read(downloaded), "config.json of the hub"


def shape_of(config: dict[str, Any], settings: ModelSettings, source: str, has_scalar_head: bool = False) -> Shape:
    """The sizes of the model that a config.json describes; nothing of it is allocated.

    Raises: UserError for a configuration that is no causal language model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    known = {key: value for key, value in config.items() if key not in ("model_type", "dtype", "torch_dtype")}
    kind = AutoModelForSequenceClassification if has_scalar_head else AutoModelForCausalLM
    try:
        made = AutoConfig.for_model(config.get("model_type", ""), **known)
        if has_scalar_head:
            made.num_labels = 1
        with torch.device("meta"):
            model: Any = kind.from_config(made)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"model.path: {source} describes no model that can be built: {error}") from None
    adapters = 0
    if settings.lora is not None:
        from prefopt.model.load import with_adapters

        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what peft says of a model that will never run
            model = with_adapters(model, settings.lora, "SEQ_CLS" if has_scalar_head else "CAUSAL_LM")
        adapters = sum(p.numel() for name, p in model.named_parameters() if ".lora_" in name)
    text = made.get_text_config()
    sizes = text.to_dict()
    (first, *_), num_layers = _layers(model)
    linears = [m for name, m in first.named_modules() if _is_linear(m) and ".lora_" not in f".{name}"]
    names = {name.split(".")[-1] for name, _ in first.named_modules()}
    heads = int(text.num_attention_heads)
    trained = [p for p in model.parameters() if p.requires_grad]
    norms = [m for m in first.modules() if "norm" in type(m).__name__.lower() and _width(m) == text.hidden_size]
    return Shape(
        source=source,
        family=made.model_type,
        hidden=int(text.hidden_size),
        inner=int(sizes.get("intermediate_size") or sizes.get("n_inner") or 4 * text.hidden_size),
        layers=num_layers,
        heads=heads,
        key_heads=int(sizes.get("num_key_value_heads") or heads),
        head_size=int(sizes.get("head_dim") or text.hidden_size // heads),
        vocabulary=int(text.vocab_size),
        is_gated=bool(names & {"gate_proj", "gate_up_proj"}),
        num_norms=len(norms),
        total=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in trained),
        in_layers=num_layers * (sum(m.weight.numel() for m in linears) + _experts(first, sizes)),
        adapters=adapters,
        widest=max(p.numel() for p in model.parameters()),
        layer=sum(p.numel() for p in first.parameters()),
        trainable_shapes=tuple(tuple(p.shape) for p in trained),
        adapted=_adapted(first),
        rank=0 if settings.lora is None else settings.lora.r,
        normalises_heads="q_norm" in names,
        has_scalar_head=has_scalar_head,
    )


def _layers(model: nn.Module) -> tuple[list[Any], int]:
    """The decoder layers: the longest list of modules."""
    import torch

    lists = [list(m) for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m)]
    if not lists:
        raise UserError("model.path: this model has no list of layers that could be counted")
    longest = max(lists, key=len)
    return longest, len(longest)


def _is_linear(module: nn.Module) -> bool:
    """torch's Linear, or GPT-2's Conv1D, which is one the other way round; not what adapters are wrapped in."""
    import torch
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (torch.nn.Linear, Conv1D))


def _experts(layer: Any, sizes: dict[str, Any]) -> int:
    """Elements of the experts that a token sees, which lie stacked in tensors of three dimensions; else 0."""
    stacked = sum(p.numel() for p in layer.parameters() if p.ndim == 3)
    return stacked * sizes["num_experts_per_tok"] // sizes["num_local_experts"] if stacked else 0


def _width(norm: nn.Module) -> int:
    weight = getattr(norm, "weight", None)
    return 0 if weight is None or weight.ndim != 1 else weight.shape[0]


def _adapted(layer: nn.Module) -> tuple[tuple[str, int, int], ...]:
    found = []
    for name, module in layer.named_modules():
        lora_a, lora_b = getattr(module, "lora_A", None), getattr(module, "lora_B", None)
        if lora_a and lora_b:
            (down,), (up,) = lora_a.values(), lora_b.values()
            found.append((name.split(".")[-1], down.weight.shape[1], up.weight.shape[0]))
    return tuple(found)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"model.path: {file} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"model.path: {file} does not hold an object")
    return found


def _in_cache(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _download(name: str, revision: str | None) -> Path | None:
    """config.json alone; None where the hub has none, or cannot be asked."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    from prefopt.data.hub import quiet_hub

    try:
        with quiet_hub():
            return Path(hf_hub_download(name, "config.json", revision=revision))
    except (HFValidationError, HfHubHTTPError, OSError):
        return None
