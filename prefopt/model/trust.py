"""What a folder of somebody else's may not make this machine do: run code that came with it, or fetch some.

Pickles are never opened and classes of a folder's own never imported; whoever loads a folder also says so to
transformers (`trust_remote_code=False`, `use_safetensors=True`). What is here tells it in one sentence, before anything
is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefopt.errors import UserError

ADAPTER_CONFIG = "adapter_config.json"
"""The file by which a folder of adapters is known."""

_AUTO = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
_KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
_CONVERT = "convert them to safetensors once, with a tool you trust"


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises: UserError naming the file where it holds anything else.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        said = getattr(error, "strerror", None) or str(error)[:200] or type(error).__name__
        raise UserError(f"{file} cannot be read: {said}", "copy or download it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{file} does not hold a JSON object", "copy or download it again")
    return value


def check_model_folder(folder: Path, path: str) -> None:
    """Refuse a model that would need code of its own, weights that are pickled, and adapters that nobody asked for.

    path: as messages name the folder; they begin with "model.path:".

    Raises: UserError.
    """
    config = read_object(folder / "config.json")
    _check_own_code(config, path)
    for key, value in _kernels(config):
        raise UserError(
            f"model.path: {path}: {key} in config.json names code to download ({value[:80]}), which prefopt does not"
            " run",
            f"take {key} out of it",
        )
    _check_pickles(folder, path)
    if (folder / ADAPTER_CONFIG).is_file():
        raise UserError(
            f"model.path: {path} holds a whole model and adapters beside it ({ADAPTER_CONFIG}): which is meant?",
            "take the files of one of them out",
        )


def check_adapter_folder(folder: Path) -> None:
    """Refuse adapters that are pickled, or no LoRA.

    Raises: UserError.
    """
    config = read_object(folder / ADAPTER_CONFIG)
    if config.get("peft_type") != "LORA":
        raise UserError(f"{folder} holds adapters of the kind {config.get('peft_type')!r}, prefopt reads LORA")
    if (folder / "adapter_model.safetensors").is_file():
        return
    if pickled := sorted(p.name for p in folder.glob("adapter_model.*")):
        raise UserError(f"{folder} has only pickled adapters ({pickled[0]}), which can run code when loaded", _CONVERT)
    raise UserError(f"{folder} has no adapters (adapter_model.safetensors)", f"copy them beside {ADAPTER_CONFIG}")


def _check_own_code(config: Mapping[str, Any], path: str) -> None:
    auto = config.get("auto_map")
    own = [name for name in _AUTO if isinstance(auto, Mapping) and auto.get(name)]
    if not own:
        return
    # Many folders bring code for a family that transformers has had since. Only they make this process import so much.
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    family = config.get("model_type")
    if isinstance(family, str) and family in CONFIG_MAPPING:
        return
    assert isinstance(auto, Mapping)
    raise UserError(
        f"model.path: {path}: this model needs its own code ({str(auto[own[0]])[:80]} for the family"
        f" {str(family)[:40]}), which prefopt does not run",
        "take a model of a family that transformers has itself",
    )


def _kernels(value: Any) -> Iterator[tuple[str, str]]:
    """Keys, at any depth, whose value is a repository of kernels (OWNER/NAME): transformers would import it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in _KERNELS and isinstance(inner, str) and "/" in inner:
                yield key, inner
            yield from _kernels(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _kernels(inner)


def _check_pickles(folder: Path, path: str) -> None:
    if not list(folder.glob("*.safetensors")):
        raise UserError(
            f"model.path: {path} has only pickled weights (pytorch_model*.bin), which can run code when loaded",
            _CONVERT,
        )
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    shards = read_object(index).get("weight_map")
    for name in sorted(set(map(str, shards.values()))) if isinstance(shards, Mapping) else ():
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(
                f"model.path: {index} names {name[:80]!r}, which is no safetensors file of this folder",
                "copy or download the model again",
            )
