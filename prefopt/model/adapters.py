"""A folder of trained adapters as the whole model that it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefopt.model.files import base_of
from prefopt.model.finite import check_finite
from prefopt.model.load import load_policy
from prefopt.model.policy import Policy
from prefopt.settings import ModelSettings


def load_merged(settings: ModelSettings, folder: Path, *, longest: int) -> Policy:
    """The adapters in `folder` merged into their base, as a plain policy. Raises: as `load_policy`."""
    from peft import PeftModel  # seconds of imports that few runs need

    base = load_policy(settings, base_of(folder), longest=longest, adapters=False)
    adapted: Any = PeftModel.from_pretrained(base.pretrained, str(folder))
    check_finite(adapted, folder)
    return Policy(adapted.merge_and_unload(), base.layout)
