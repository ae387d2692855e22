"""The models that a measure asks, opened as `prefopt pairs` opens those that score, and what a folder holds."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from prefopt.evaluate.measure import EvalPlace
from prefopt.model.files import adapter_folder, base_of, model_folder
from prefopt.model.heads import has_head, head_labels
from prefopt.model.load import longest_row
from prefopt.pairs.packed import PackedModel
from prefopt.pairs.score_models import open_language_model, open_reward_model, tokenizer_of
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import Place

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

say = partial(print, "eval:", file=sys.stderr, flush=True)
"""How far a measure is, for the terminal."""


def holds_reward_model(path: str) -> bool:
    """Whether a folder, or adapters in it, has a trained head for sequences, told by its tensors.

    Raises: UserError or RunError for what is no model.
    """
    adapters = adapter_folder(path)
    if adapters is not None:
        return has_head(adapters)
    return bool(head_labels(model_folder(path)))


def positions_of(path: str) -> int | None:
    """The most tokens that prompt and response may have together; None where the model names no limit."""
    adapters = adapter_folder(path)
    return longest_row(model_folder(path if adapters is None else base_of(adapters)))


def tokenizer_at(place: EvalPlace, path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, that which is measured with the chat template of the command."""
    return tokenizer_of(_place(place), path)


def open_measured(place: EvalPlace) -> PackedModel:
    """The model that is measured, whichever it is. Raises: UserError for what cannot be loaded."""
    if holds_reward_model(place.model):
        return open_reward_model(_place(place), place.model, "model")
    return open_language_model(_place(place), place.model, "model")


def open_reference(place: EvalPlace) -> PackedModel:
    """The reference. Raises: UserError for what cannot be loaded."""
    return open_language_model(_place(place), place.settings.reference, "reference")


def _place(place: EvalPlace) -> Place:
    settings = place.settings
    as_pairs = PairsSettings(
        policy=place.model,
        dtype=settings.dtype,
        chat_template=settings.chat_template,
        tokens_per_batch=settings.tokens_per_batch,
        seed=settings.seed,
    )
    return Place(as_pairs, place.device, str(place.folder / "notes"), say)
