"""The next step's micro-batches, packed by a thread while the current step computes."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple

from prefopt.batch import MicroBatch
from prefopt.data.plan import Cut, Plan
from prefopt.train.engine import Engine
from prefopt.train.rows import Rows


class StepWork(NamedTuple):
    """One rank's share of a step, packed on the CPU (in pinned memory where a GPU fetches it).

    dealt: the step's cut, over all ranks. baseline: responses to other prompts, where the method measures them. spare:
    the cheapest row of the step, which does not count: for a rank that only keeps the others company.
    """

    dealt: Cut
    micro_batches: list[MicroBatch]
    baseline: list[MicroBatch]
    spare: MicroBatch


class Loader:
    """Packs one step ahead. Use as a context manager: its thread ends with the block, however that ends.

    What it gives is a pure function of plan, step and budget; the thread only does it earlier.
    """

    def __init__(self, plan: Plan, rows: Rows, engine: Engine) -> None:
        self._plan = plan
        self._rows = rows
        self._engine = engine
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefopt-loader")
        self._ahead: tuple[tuple[int, int], Future[StepWork]] | None = None
        self._waited = 0.0

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def take(self, step: int, tokens_per_micro_batch: int) -> StepWork:
        """Step number `step`, packed; begins with the one after it.

        Raises: whatever packing this step raises, here and not in the thread.
        """
        start = time.perf_counter()
        wanted = (step, tokens_per_micro_batch)
        if self._ahead is None or self._ahead[0] != wanted:  # the first step, or the budget has changed
            self._ahead = (wanted, self._thread.submit(self._pack, *wanted))
        work = self._ahead[1].result()
        following = (step + 1, tokens_per_micro_batch)
        in_plan = following[0] < len(self._plan)
        self._ahead = (following, self._thread.submit(self._pack, *following)) if in_plan else None
        self._waited += time.perf_counter() - start
        return work

    def seconds_waited(self) -> float:
        """Seconds spent in `take` since this was last asked."""
        waited, self._waited = self._waited, 0.0
        return waited

    def _pack(self, step: int, tokens_per_micro_batch: int) -> StepWork:
        places, rank = self._plan.steps[step], self._engine.rank

        def share(rows: Rows) -> tuple[Cut, list[MicroBatch]]:
            dealt = rows.cut(places, self._engine.world_size, tokens_per_micro_batch)
            return dealt, [self._held(m) for m in rows.micro_batches(dealt, rank)]

        dealt, micro_batches = share(self._rows)
        baseline = [] if self._rows.baseline is None else share(self._rows.baseline)[1]
        return StepWork(dealt, micro_batches, baseline, self._held(self._rows.spare(dealt)))

    def _held(self, micro_batch: MicroBatch) -> MicroBatch:
        """In pinned memory where a GPU takes it: the copy then goes on beside the computation."""
        if self._engine.device.type != "cuda":
            return micro_batch
        return micro_batch._replace(batch=micro_batch.batch.pinned())
