"""A step that may run out of memory: noticed on one rank, known to all, and nothing of it kept."""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple

import torch

from prefopt.batch import MicroBatch
from prefopt.errors import RunError
from prefopt.train.engine import Engine
from prefopt.train.memory import is_out_of_memory


class TooLarge(NamedTuple):
    """A micro-batch that did not fit. rows: its data rows. tokens: its places on the axis."""

    rows: tuple[str, ...]
    tokens: int


class OutOfMemory(RunError):
    """A step that did not fit, on every rank alike; nothing was updated. found: what did not fit, of all ranks."""

    def __init__(self, what: str, found: list[TooLarge]) -> None:
        most = max(f.tokens for f in found)
        super().__init__(f"{what}: a micro-batch of {most} tokens does not fit in memory", LOWER)
        self.found = found


LOWER = "lower train.tokens_per_micro_batch"


class Attempt:
    """One try at a step. failed: this rank's micro-batch that did not fit; the rest of the step is then left out.

    With several ranks the others do not know yet. A rank that failed keeps them company with a row that does not count,
    up to the step's next reduction, where all learn of it and give up together. That works where nothing but the end of
    the last micro-batch is shared by the ranks, which is so under DDP.
    """

    def __init__(self, engine: Engine, what: str) -> None:
        """what: names the work in messages."""
        self._engine = engine
        self._what = what
        self.failed: TooLarge | None = None
        self.is_shared = False
        self._watched: MicroBatch | None = None

    def watch(self, micro_batch: MicroBatch) -> Attempt:
        """A block around work on a micro-batch that may not fit; it ends where memory is refused.

        Set `is_shared` inside it as soon as the ranks exchange something.

        Raises: RunError where the other ranks cannot be kept company: inside an exchange, and under DeepSpeed and FSDP,
            whose ranks exchange weights or count passes in every micro-batch.
        """
        self._watched = micro_batch
        self.is_shared = False
        return self

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if not is_out_of_memory(error):
            return False
        assert self._watched is not None
        batch = self._watched.batch
        tokens = batch.input_ids.shape[0]
        if not self._watched.real or self.is_shared or self._engine.kind.exchanges_in_forward:
            name = "DeepSpeed" if self._engine.zero_stage is not None else "FSDP"
            how = f"under {name}" if self._engine.kind.exchanges_in_forward else "while ranks exchange gradients"
            raise RunError(
                f"{self._what}: a micro-batch of {tokens} tokens does not fit in memory,"
                f" and {how} a step cannot be repeated",
                f"{LOWER} below {tokens}",
            ) from None
        self.failed = TooLarge(batch.ids, tokens)
        return True

    def give_up(self) -> OutOfMemory:
        """The error to raise, once every rank knows; every rank must call."""
        found = [f for f in self._engine.gather(self.failed) if f is not None]
        return OutOfMemory(self._what, found)

    def agree(self) -> None:
        """Raises: OutOfMemory on every rank where any failed so far; every rank must call."""
        failed = torch.tensor(float(self.failed is not None), device=self._engine.device)
        if self._engine.all_reduce(failed).item():
            raise self.give_up()
