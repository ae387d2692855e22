"""Whether a model is of the kind that a stage wants, told from its folder: configuration and headers, no weights.

`prefopt pairs` asks before a folder is made, and the stages once more when they open. Imports nothing heavy.
"""

from __future__ import annotations

from pathlib import Path

from prefopt.errors import UserError
from prefopt.model.files import TOKENIZERS, adapter_folder, base_of, model_folder
from prefopt.model.heads import has_head, head_labels
from prefopt.model.positions import positions
from prefopt.pairs.called import called
from prefopt.pairs.places import real
from prefopt.pairs.stages import Asked

_TRAIN_ONE = "train one: loss=reward_bt"


def check_language_model(path: str, key: str) -> Path:
    """The folder of the whole model that `path` is, or that adapters there were trained on. key: the setting that names
    it, for messages.

    Raises: UserError for what cannot be loaded, and for a reward model, whose LM head has been taken off.
    """
    with called(key):
        adapters = adapter_folder(real(path, key))
        base = model_folder(real(path, key) if adapters is None else base_of(adapters))
        labels = head_labels(base)
        if labels or (adapters is not None and has_head(adapters)):
            how = _counted(labels) if labels else "a head beside its adapters"
            raise UserError(
                f"{key}: {path} is a reward model ({how}), not a language model",
                "take a language model, or score=reward" if key != "policy" else "take a language model",
            )
        _check_tokenizer(path, key, base, adapters)
        return base


def check_reward_model(path: str, key: str) -> Path:
    """The same of a model with a trained scalar head.

    Raises: UserError for what cannot be loaded, a model without a head, or a head of several labels.
    """
    with called(key):
        adapters = adapter_folder(real(path, key))
        base = model_folder(real(path, key) if adapters is None else base_of(adapters))
        if adapters is not None and not has_head(adapters):
            raise UserError(f"{key}: {path} has no trained scalar head beside its adapters", _TRAIN_ONE)
        if adapters is None and len(labels := _labels(base, path, key)) > 1:
            raise UserError(
                f"{key}: {path} has a head of {_counted(labels)}, score=reward takes one of a single label",
                "score=reward_heads weighs several",
            )
        _check_tokenizer(path, key, base, adapters)
        return base


def check_reward_heads(path: str, key: str) -> tuple[Path, tuple[str, ...]]:
    """The folder of a model with a trained head of several labels, and their names in its order.

    Raises: UserError for what cannot be loaded, a model without a head, or a head of one label.
    """
    with called(key):
        folder = model_folder(real(path, key))
        labels = _labels(folder, path, key)
        if len(labels) < 2:
            raise UserError(f"{key}: {path} has a head of one label, score=reward_heads weighs several", "score=reward")
        _check_tokenizer(path, key, folder, None)
        return folder, labels


def check_policies(asked: Asked, max_new_tokens: int) -> None:
    """The policies of a command, and that answers leave room for the longest of its prompts among their positions.

    Raises: as `check_language_model`; UserError where an answer alone may take every position, with what would do.
    """
    for path in asked.settings.policies:
        base = check_language_model(path, "policy")
        most = positions(base)
        if most is not None and max_new_tokens >= most:
            tokens = _longest_prompt(path, base, asked)
            raise UserError(
                f"generate.max_new_tokens={max_new_tokens}: {path} has {most} positions, for prompt and answer",
                f"the longest prompt has {tokens} tokens: at most generate.max_new_tokens={most - tokens}"
                if 0 < tokens < most
                else f"set less than {most}, and leave room for the prompts",
            )


def own_model(model: str, asked: Asked, stage: str) -> None:
    """The language model that the setting `model` of a stage names, "" being the policy.

    Raises: UserError where several policies leave open which is meant; as `check_language_model`.
    """
    policies = asked.settings.policies
    if not model and len(policies) > 1:
        raise UserError(f"{stage}: which of the {len(policies)} policies is meant?", "name one as its model")
    if model or policies:
        check_language_model(model or policies[0], f"model of {stage}" if model else "policy")


def _longest_prompt(path: str, base: Path, asked: Asked) -> int:
    """Tokens of the longest prompt, by the policy's own tokenizer; 0 where that cannot be told."""
    from prefopt.data.prompts import PromptEncoder
    from prefopt.data.rows import Unusable
    from prefopt.data.tokenizer import load_tokenizer

    found = Path(real(path)).expanduser()
    own = str(found if any(found.glob("tokenizer*")) else base)
    encode = PromptEncoder(load_tokenizer(own, None, asked.settings.chat_template))
    counts = [0]
    for example in asked.longest_prompts():
        try:
            counts.append(len(encode(example)))
        except Unusable:  # it is left out, with its reason, when it is asked
            continue
    return max(count for count in counts if count <= asked.settings.max_prompt_tokens)


def _check_tokenizer(path: str, key: str, base: Path, adapters: Path | None) -> None:
    places = [base] if adapters is None else [adapters, base]
    if not any((place / name).is_file() for place in places for name in TOKENIZERS):
        raise UserError(f"{key}: {path} holds no tokenizer (tokenizer.json)", "copy the one it was trained with there")


def _labels(folder: Path, path: str, key: str) -> tuple[str, ...]:
    labels = head_labels(folder)
    if not labels:
        raise UserError(f"{key}: {path} has no trained scalar head", _TRAIN_ONE)
    return labels


def _counted(labels: tuple[str, ...]) -> str:
    return f"{len(labels)} labels" if len(labels) > 1 else "one label"
