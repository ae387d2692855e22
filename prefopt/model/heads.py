"""Which heads a folder of weights holds, told from configuration and headers: no weight is read. Nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefopt.errors import UserError
from prefopt.model.trust import read_object

HEAD = "score"
"""The scalar head's name in transformers' decoder models for sequence classification."""

_LABELS = 2
"""Labels of a configuration that says nothing of them, as transformers takes it."""


def stored_tensors(folder: Path) -> set[str]:
    """Names of the tensors in a folder's safetensors files.

    Raises: UserError for a file that is cut or damaged.
    """
    from safetensors import SafetensorError, safe_open

    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, framework="np") as content:
                names.update(content.keys())
        except SafetensorError as error:
            said = str(error).strip().split("\n")[0]
            raise UserError(f"model.path: {file} is cut or damaged ({said})", "copy it again") from None
    return names


def head_labels(folder: Path) -> tuple[str, ...]:
    """Names of the labels of a folder's trained head for sequences, in its order; none where it has no such head.

    Raises: UserError where its configuration or its weights cannot be read.
    """
    if f"{HEAD}.weight" not in stored_tensors(folder):
        return ()
    config = read_object(folder / "config.json")
    named = config.get("id2label")
    names = {str(place): str(name) for place, name in named.items()} if isinstance(named, dict) else {}
    count = len(names) or _count(config.get("num_labels"))
    return tuple(names.get(str(place), f"LABEL_{place}") for place in range(count))


def has_head(adapters: Path) -> bool:
    """Whether a folder of adapters has a trained head for sequences beside them. Raises: as `stored_tensors`."""
    return any(name.endswith(f".{HEAD}.weight") for name in stored_tensors(adapters))


def _count(said: Any) -> int:
    return said if isinstance(said, int) and not isinstance(said, bool) and said > 0 else _LABELS
