"""A folder of trained adapters as the whole model that it stands for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefopt.errors import UserError
from prefopt.model.files import ADAPTER_CONFIG
from prefopt.model.load import load_policy
from prefopt.model.policy import Policy
from prefopt.settings import ModelSettings


def base_of(folder: Path) -> str:
    """The model that the adapters in `folder` were trained on, as they name it.

    Raises: UserError where they name none.
    """
    base = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise UserError(f"{folder / ADAPTER_CONFIG} does not name the model that the adapters belong to")
    return str(base)


def load_merged(settings: ModelSettings, folder: Path, *, longest: int) -> Policy:
    """The adapters in `folder` merged into their base, as a plain policy. Raises: as `load_policy`."""
    from peft import PeftModel  # seconds of imports that few runs need

    base = load_policy(settings, base_of(folder), longest=longest, adapters=False)
    adapted: Any = PeftModel.from_pretrained(base.pretrained, str(folder))
    return Policy(adapted.merge_and_unload(), base.layout)
