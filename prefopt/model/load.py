"""Loading a policy or a reward model, with errors a user can act on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedConfig

from prefopt.errors import UserError
from prefopt.model.files import model_folder
from prefopt.model.finite import check_finite
from prefopt.model.heads import HEAD, stored_tensors
from prefopt.model.policy import Policy, RewardHeadsPolicy, RewardPolicy
from prefopt.model.positions import Limits, check_longest, limits_of
from prefopt.model.quantised import quantisation
from prefopt.model.recompute import recompute_layers
from prefopt.settings import LoraSettings, ModelSettings

P = TypeVar("P", bound=Policy)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_policy(
    settings: ModelSettings, path: str | None = None, *, longest: int, adapters: bool = True, reads: bool = True
) -> Policy:
    """The model of `settings`, on the CPU or wherever an active ZeRO-3 configuration puts its shards.

    path: another model than `settings.path` (the reference). longest: tokens of the longest sequence it will see.
    adapters: put the LoRA adapters of `settings` on it. reads: False: the weights stay on torch's meta device, without
    memory, until another process sends them.

    Dropout is off, so that the policy before its first update gives the log-probabilities of its own reference.

    Raises: UserError for a folder that is no causal language model, lacks weights or has broken ones (numbers that are
        not finite among them), or whose positions end before `longest`.
    """
    folder = _folder(settings, path)
    config = _config(folder, longest)
    model = _weights(folder, config, settings, AutoModelForCausalLM, frozenset(), adapters, reads)
    return _policy(Policy, model, settings, adapters, "CAUSAL_LM")


def load_reward_policy(
    settings: ModelSettings, path: str | None = None, *, longest: int, adapters: bool = True, reads: bool = True
) -> RewardPolicy:
    """The same with a scalar head, which starts at random (torch's generator) where the folder has none.

    Raises: as `load_policy`; also for a family without such a head and for a head with several labels.
    """
    folder = _folder(settings, path)
    config = _config(folder, longest)
    if "score.weight" in stored_tensors(folder) and config.num_labels != 1:
        raise UserError(f"model.path: {folder} has a head of {config.num_labels} labels, a reward model has one")
    config.num_labels = 1
    model = _classifier(folder, config, settings, frozenset({f"{HEAD}.weight"}), adapters, reads)
    return _policy(RewardPolicy, model, settings, adapters, "SEQ_CLS")


def load_reward_heads(settings: ModelSettings, *, longest: int) -> RewardHeadsPolicy:
    """A model with a trained head of several labels. Its labels: `head_labels` of heads.py.

    Raises: as `load_policy`; also for a family without such a head or a folder that lacks its weights.
    """
    folder = _folder(settings, None)
    model = _classifier(folder, _config(folder, longest), settings, frozenset(), False, True)
    return _policy(RewardHeadsPolicy, model, settings, False, "SEQ_CLS")


def longest_row(folder: Path) -> int | None:
    """The most tokens that prompt and response may have together for this model; None where it names no limit.

    Raises: UserError where its configuration cannot be used.
    """
    return _limits(_config(folder, 0)).longest


def _classifier(
    folder: Path,
    config: PreTrainedConfig,
    settings: ModelSettings,
    may_be_missing: frozenset[str],
    adapters: bool,
    reads: bool,
) -> Any:
    """The model with transformers' head for sequences. may_be_missing: weights that may start at random."""
    if config.pad_token_id == config.eos_token_id:
        config.pad_token_id = (
            None  # transformers looks for the last token that is no padding: EOS must not be taken for it
        )
    model = _weights(folder, config, settings, AutoModelForSequenceClassification, may_be_missing, adapters, reads)
    if not hasattr(model, HEAD):
        raise UserError(f"model.path: transformers has no scalar head named {HEAD} for {config.model_type} models")
    return model


def _folder(settings: ModelSettings, path: str | None) -> Path:
    """Where the model lies. A revision is one of `settings.path` and says nothing of another repository."""
    if path is None or path == settings.path:
        return model_folder(settings.path, settings.revision)
    return model_folder(path)


def _config(folder: Path, longest: int) -> PreTrainedConfig:
    """The model's configuration with dropout off.

    Raises: UserError where transformers makes nothing of it, or its positions end before `longest`.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # what somebody wrote into config.json fails wherever it is looked at
        said = _first_line(error) or type(error).__name__
        raise UserError(f"model.path: {folder / 'config.json'} cannot be used: {said}", "copy it again") from None
    check_longest(_limits(config), longest, folder)
    for name in _dropout_keys(config):
        setattr(config, name, 0.0)
    return config


def _limits(config: PreTrainedConfig) -> Limits:
    return limits_of(config.get_text_config().to_dict())


def _weights(
    folder: Path,
    config: PreTrainedConfig,
    settings: ModelSettings,
    kind: Any,
    may_be_missing: frozenset[str],
    adapters: bool,
    reads: bool,
) -> Any:
    """The model with the weights of its folder, held as `model.lora.base` says where adapters go on them."""
    what = "causal language model" if kind is AutoModelForCausalLM else "model with a scalar head"
    dtype = DTYPES[settings.dtype]
    held = quantisation(settings.base if adapters else "plain", dtype)
    try:
        with nullcontext() if reads else _buffers_made():
            loaded: Any = kind.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                device_map=None if reads else {"": "meta"},
                quantization_config=held,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        model, info = loaded
    except SafetensorError as error:
        raise UserError(
            f"model.path: a weights file in {folder} is cut or damaged ({_first_line(error)})", "copy it again"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise UserError(f"model.path: {folder} does not load as a {what}: {_first_line(error)}") from None
    missing = sorted(set(info["missing_keys"]) - may_be_missing)
    if missing:
        raise UserError(
            f"model.path: {folder} lacks {len(missing)} weights, the first is {missing[0]}",
            "they would start at random; copy the whole model",
        )
    check_finite(model, folder)
    return model


@contextmanager
def _buffers_made() -> Iterator[None]:
    """Meanwhile transformers makes the buffers that no file holds (rotary frequencies) beside weights that are not
    read: its own switches for the ranks of FSDP that are not the first of a machine."""
    added = {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _policy(kind: type[P], model: Any, settings: ModelSettings, adapters: bool, task: str) -> P:
    has_adapters = settings.lora is not None and adapters
    if settings.lora is not None and adapters:
        model.name_or_path = settings.path  # what the adapter names as its base: a hub name stays one
        model = with_adapters(model, settings.lora, task)
    policy = kind(model, "shared" if settings.layout == "auto" else settings.layout, has_adapters)
    if settings.checkpoint_every is not None:
        recompute_layers(policy.pretrained, settings.checkpoint_every, settings.offload_activations)
    return policy


def with_adapters(model: Any, lora: LoraSettings, task: str) -> Any:
    """A transformers model with the adapters of `lora` on it. task: peft's name of what the model does.

    Raises: UserError where no module has the names that `lora` targets.
    """
    from peft import LoraConfig, get_peft_model  # seconds of imports that only LoRA runs need

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # any number will do, as peft's own examples show
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type=task,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"model.lora.target_modules: {_first_line(error)}", 'try "all-linear"') from None


def _dropout_keys(config: PreTrainedConfig) -> list[str]:
    """Every probability of dropout that the configuration sets above 0."""
    return [
        k
        for k, v in config.to_dict().items()
        if ("dropout" in k or k.endswith("_pdrop")) and isinstance(v, float) and v
    ]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
