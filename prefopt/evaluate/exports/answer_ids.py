"""Ids of answers by what they are, so that the same answers give the same bytes, whoever writes them and when."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

_LENGTH = 22  # of the short UUIDs that evaluators write


def answer_id(generator: str, question: str, turns: Sequence[str]) -> str:
    """22 hex digits that model, question and answers decide."""
    return hashlib.sha256(json.dumps([generator, question, list(turns)]).encode()).hexdigest()[:_LENGTH]
