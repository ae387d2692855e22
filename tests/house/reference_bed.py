"""The reference pages' makers, and what of a run they do not name."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from docs_metrics import is_documented
from docs_reference import FOLDER, PAGES, keys_of

__all__ = ["FOLDER", "PAGES", "keys_of", "undocumented"]


def undocumented(names: Iterable[str]) -> set[str]:
    """Keys of metrics.jsonl that docs/reference/metrics.md does not have."""
    return {name for name in names if not is_documented(name)}
