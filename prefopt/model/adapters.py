"""A folder of trained adapters as the whole model, or reward model, that it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefopt.errors import UserError
from prefopt.model.files import base_of
from prefopt.model.finite import check_finite
from prefopt.model.heads import has_head
from prefopt.model.load import load_policy, load_reward_policy
from prefopt.model.policy import Policy, RewardPolicy
from prefopt.settings import ModelSettings


def load_merged(settings: ModelSettings, folder: Path, *, longest: int) -> Policy:
    """The adapters in `folder` merged into their base, as a plain policy. Raises: as `load_policy`."""
    base = load_policy(settings, base_of(folder), longest=longest, adapters=False)
    return Policy(_merged(base, folder), base.layout)


def load_merged_reward(settings: ModelSettings, folder: Path, *, longest: int) -> RewardPolicy:
    """The same of adapters that were trained with a scalar head, which lies beside them.

    Raises: as `load_reward_policy`; also where there is no head.
    """
    if not has_head(folder):
        raise UserError(f"model.path: {folder} has no trained scalar head beside its adapters", _TRAIN_ONE)
    base = load_reward_policy(settings, base_of(folder), longest=longest, adapters=False)
    return RewardPolicy(_merged(base, folder), base.layout)


_TRAIN_ONE = "train one: loss=reward_bt"


def _merged(base: Policy, folder: Path) -> Any:
    from peft import PeftModel  # seconds of imports that few runs need

    adapted: Any = PeftModel.from_pretrained(base.pretrained, str(folder))
    check_finite(adapted, folder)
    return adapted.merge_and_unload()
