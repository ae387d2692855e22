"""Examples with scored candidates, for the tests of what comes behind scoring."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from prefopt.pairs.chance import chance_of
from prefopt.pairs.registry import make_stage
from prefopt.pairs.stages import WINS, Selected
from prefopt.records import Candidate, Example, Message


def example(
    scores: Sequence[float],
    texts: Sequence[str] | None = None,
    wins: Sequence[Sequence[float]] | None = None,
    prompt: str = "Why?",
    id: str = "prompts.jsonl:1",
) -> Example:
    """A plain prompt; candidate i is called "answer i" where no texts are given."""
    named = texts or [f"answer {place}" for place in range(len(scores))]
    sources: list[dict[str, Any] | None] = [None] * len(scores) if wins is None else [{WINS: list(row)} for row in wins]
    candidates = tuple(Candidate(t, score=s, source=w) for t, s, w in zip(named, scores, sources, strict=True))
    return Example(id, (Message("user", prompt),), candidates, is_chat=False)


def select(name: str, of: Example, seed: int = 0, **settings: Any) -> Selected:
    """What a selector takes, by its name and settings, as `prefopt pairs` would open it."""
    return make_stage("select", {"name": name, **settings})(of, chance_of(seed, of, "select"))


def prompts(count: int) -> list[str]:
    """Different prompts, the same in every run."""
    drawn = random.Random(7)
    return [f"prompt {number} {drawn.random()}" for number in range(count)]
