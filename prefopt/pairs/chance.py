"""Randomness that belongs to a prompt: decided by its words and the seed, not by when or where it is worked on."""

from __future__ import annotations

import hashlib
import json
import random

from prefopt.records import Example


def key_of(example: Example) -> str:
    """64 hex digits of the prompt's words and roles: equal for equal prompts, wherever they stand."""
    words = [[m.role, m.content] for m in example.prompt], example.is_chat
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def number_of(*what: object) -> int:
    """128 bits that nothing but `what` decides."""
    return int.from_bytes(hashlib.sha256(json.dumps([str(w) for w in what]).encode()).digest()[:16], "big")


def chance_of(seed: int, example: Example, purpose: str) -> random.Random:
    """A stream of random numbers for one purpose of one prompt."""
    return random.Random(number_of(seed, purpose, key_of(example)))
