"""Models that score, opened: whole models, hub names and folders of adapters, frozen, each with its own tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from prefopt.data.tokenizer import load_tokenizer, tokenizer_fingerprint
from prefopt.errors import UserError
from prefopt.model.adapters import load_merged, load_merged_reward
from prefopt.model.files import adapter_folder, base_of
from prefopt.model.kernel import settle_kernel
from prefopt.model.layout import settle_layout
from prefopt.model.load import (
    DTYPES,
    load_policy,
    load_reward_heads,
    load_reward_policy,
    longest_row,
)
from prefopt.model.policy import Policy
from prefopt.pairs.called import called
from prefopt.pairs.encode import CandidateEncoder
from prefopt.pairs.model_checks import check_language_model, check_reward_heads, check_reward_model
from prefopt.pairs.packed import PackedModel
from prefopt.pairs.places import real
from prefopt.pairs.stages import Place
from prefopt.settings import ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANY_LENGTH = 0
"""Rows are encoded to the model's own limit, so that none is too long for it."""


def open_language_model(place: Place, path: str, key: str) -> PackedModel:
    """A causal language model. key: the setting that names it, for messages.

    Raises: UserError for what cannot be loaded, and as `check_language_model`.
    """
    base = check_language_model(path, key)
    with called(key):
        settings, adapters = _settings(place, path), adapter_folder(real(path))
        if adapters is not None:
            return _opened(place, path, key, base, lambda: load_merged(settings, adapters, longest=_ANY_LENGTH))
        return _opened(place, path, key, base, lambda: load_policy(settings, longest=_ANY_LENGTH))


def open_reward_model(place: Place, path: str, key: str) -> PackedModel:
    """A model with a trained scalar head. key: the setting that names it, for messages.

    Raises: UserError for what cannot be loaded, and as `check_reward_model`.
    """
    base = check_reward_model(path, key)
    with called(key):
        settings, adapters = _settings(place, path), adapter_folder(real(path))
        if adapters is not None:
            return _opened(place, path, key, base, lambda: load_merged_reward(settings, adapters, longest=_ANY_LENGTH))
        return _opened(place, path, key, base, lambda: load_reward_policy(settings, longest=_ANY_LENGTH))


def open_reward_heads(place: Place, path: str, key: str) -> PackedModel:
    """A model with a trained head of several labels. key: as above.

    Raises: UserError for what cannot be loaded, and as `check_reward_heads`.
    """
    folder, _ = check_reward_heads(path, key)
    with called(key):
        settings = _settings(place, path)
        return _opened(place, path, key, folder, lambda: load_reward_heads(settings, longest=_ANY_LENGTH))


def check_same_tokenizer(one: PackedModel, other: PackedModel, key: str) -> None:
    """Both must read the same ids in the same way. key: the setting that names `other`.

    Raises: UserError where they do not.
    """
    if tokenizer_fingerprint(one.encoder.tokenizer) != tokenizer_fingerprint(other.encoder.tokenizer):
        raise UserError(
            f"{key}: {other.encoder.model} has another tokenizer than {one.encoder.model}, so that it would read other"
            " words",
            "take the model that training started from",
        )


def open_policy(place: Place, model: str, stage: str) -> PackedModel:
    """The language model that the setting `model` of a stage names, "" being the policy. stage: as messages name it.

    Raises: UserError where there is no policy, or several; else as `open_language_model`.
    """
    if model:
        return open_language_model(place, model, f"model of {stage}")
    policies = place.settings.policies
    if not policies:
        raise UserError(f"{stage} needs a model: it names none, and there is no policy", "set its model, or policy=")
    if len(policies) > 1:
        raise UserError(f"{stage}: which of the {len(policies)} policies is meant?", "name one as its model")
    return open_language_model(place, policies[0], "policy")


def named(path: str, key: str, stage: str, what: str) -> str:
    """`path`, the setting `key` of the command, where a stage cannot do without.

    Raises: UserError where it is empty. what: what has to be given there, for the message.
    """
    if not path:
        raise UserError(f"{stage} needs {what}, and {key} names none", f"set {key}=FOLDER, or a hub name")
    return path


def _settings(place: Place, path: str) -> ModelSettings:
    return ModelSettings(path=real(path), dtype=place.settings.dtype)


def _opened(place: Place, path: str, key: str, base: Path, load: Callable[[], Policy]) -> PackedModel:
    """base: the folder of the whole model, whose configuration says how many positions there are."""
    encoder = CandidateEncoder(tokenizer_of(place, path), longest_row(base), path)
    policy = load().to(place.device).eval().requires_grad_(False)
    layout = settle_layout(policy, policy, "auto")
    if layout == "padded":
        place.say(f"{key}: {path} cannot keep packed rows apart: prompts are repeated, one padded row each")
    elif said := settle_kernel(policy, "auto", DTYPES[place.settings.dtype]):
        place.say(f"{key}: {said}")
    return PackedModel(policy, encoder, place.device, place.settings.tokens_per_batch)


def tokenizer_of(place: Place, path: str) -> PreTrainedTokenizerBase:
    """A policy's with the template of the command; another model's with its own, if it has one."""
    adapters = adapter_folder(real(path))
    folder = real(path)
    if adapters is not None and not any(adapters.glob("tokenizer*")):
        folder = base_of(adapters)
    wanted = place.settings.chat_template
    if path in place.settings.policies:
        return load_tokenizer(folder, None, wanted)
    tokenizer = load_tokenizer(folder, None, None)
    if tokenizer.chat_template is None and wanted is not None:
        place.say(f"{path} has no chat template of its own: chat_template is taken")
        return load_tokenizer(folder, None, wanted)
    return tokenizer
