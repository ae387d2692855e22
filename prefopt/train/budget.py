"""The token budget of each step: what the recipe says, or what was measured, and where it had to be lowered."""

from __future__ import annotations

import json
from pathlib import Path

from prefopt.disk import write_whole
from prefopt.train.engine import Engine

FILE = "token_budget.json"


class TokenBudget:
    """Tokens a micro-batch may hold, from each step on; kept in the run folder, so that a resumed run cuts alike.

    The file holds [[step, tokens], ...], steps counted from 0, and exists where the recipe's number is not all that
    was ever in force. Every rank has the same list.
    """

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._file = folder / FILE
        found = None
        if engine.is_main and self._file.exists():
            found = json.loads(self._file.read_text(encoding="utf-8"))["from_step"]
        stated = engine.run.train.tokens_per_micro_batch
        self._from_step: list[tuple[int, int]] = [] if stated == "auto" else [(0, stated)]
        if (kept := engine.gather(found)[0]) is not None:
            self._from_step = [(step, tokens) for step, tokens in kept]

    @property
    def is_known(self) -> bool:
        """False where it still has to be measured."""
        return bool(self._from_step)

    def at(self, step: int) -> int:
        """The budget of a step; that of the step before an evaluation is the evaluation's too."""
        return next(tokens for first, tokens in reversed(self._from_step) if first <= step)

    def set(self, step: int, tokens: int) -> None:
        """In force from `step` on. Every rank calls; rank 0 writes it down before any of them goes on."""
        self._from_step = [entry for entry in self._from_step if entry[0] < step] + [(step, tokens)]
        if self._engine.is_main:
            write_whole(self._file, json.dumps({"from_step": self._from_step}))
        self._engine.barrier()
