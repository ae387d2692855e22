"""How a job stands, from its own record and SLURM's word, in every combination that was seen or must be feared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prefopt.slurm.commands import Known
from prefopt.slurm.judge import judge
from prefopt.slurm.record import Record

BEGAN = Record("7_2", "running", host="gpu3")
REQUEUED = Record("7_2", "requeued", exit_code=75, says="stopped by SIGTERM, goes back into the queue")


@pytest.mark.parametrize(
    ("record", "known", "state", "exit_code", "says"),
    [
        (None, Known("PENDING", reason="Priority"), "queued", None, ""),
        (None, Known("PENDING", reason="AssocGrpGRES"), "queued", None, "AssocGrpGRES"),
        (None, Known("CONFIGURING"), "running", None, ""),
        (BEGAN, Known("RUNNING"), "running", None, ""),
        (BEGAN, Known("COMPLETING"), "running", None, ""),
        # SLURM took it off its node, and it waits to run again.
        (BEGAN, Known("PENDING", reason="BeginTime"), "preempted", None, "waits to run again"),
        (REQUEUED, Known("PENDING", reason="BeginTime"), "preempted", 75, "goes back into the queue"),
        (REQUEUED, Known("RUNNING"), "running", None, ""),
        (REQUEUED, Known("COMPLETED", 0), "preempted", 75, "SLURM did not take it back"),
        (REQUEUED, None, "preempted", 75, "SLURM did not take it back"),
        # What the job wrote at its end counts, whatever SLURM says, or where it says nothing.
        (replace(BEGAN, state="ended", exit_code=0), Known("COMPLETING"), "done", 0, ""),
        (replace(BEGAN, state="ended", exit_code=0), None, "done", 0, ""),
        (replace(BEGAN, state="ended", exit_code=1), Known("FAILED", 1), "failed", 1, ""),
        (
            replace(BEGAN, state="ended", exit_code=75, says="cancelled"),
            Known("CANCELLED"),
            "preempted",
            75,
            "cancelled",
        ),
        (replace(BEGAN, state="ended", exit_code=143, says="cancelled"), None, "preempted", 143, "cancelled"),
        (replace(BEGAN, state="ended", exit_code=137), None, "failed", 137, ""),
        # It had no time to write anything.
        (BEGAN, Known("OUT_OF_MEMORY", 137), "failed", 137, "OUT_OF_MEMORY"),
        (BEGAN, Known("NODE_FAIL", 1), "failed", 1, "NODE_FAIL"),
        (BEGAN, Known("CANCELLED", 143), "preempted", 143, "before it could save"),
        (None, Known("CANCELLED", 0), "preempted", None, "CANCELLED, before it began (scancel?)"),
        (BEGAN, None, "lost", None, "vanished on gpu3"),
        (None, None, "lost", None, "cancelled or removed before it began (scancel?)"),
    ],
)
def test_every_combination(
    record: Record | None, known: Known | None, state: str, exit_code: int | None, says: str
) -> None:
    verdict = judge(record, known, cancelled=False)
    assert (verdict.state, verdict.exit_code) == (state, exit_code)
    assert says in verdict.says
    if not says:
        assert not verdict.says


@pytest.mark.parametrize(
    ("record", "known", "state"),
    [
        (None, Known("PENDING"), "preempted"),
        (None, None, "preempted"),
        (BEGAN, Known("RUNNING"), "running"),
        (replace(BEGAN, state="ended", exit_code=0), None, "done"),
        (replace(BEGAN, state="ended", exit_code=1), None, "failed"),
    ],
)
def test_a_cancelled_job_is_never_lost_nor_without_a_word(
    record: Record | None, known: Known | None, state: str
) -> None:
    verdict = judge(record, known, cancelled=True)
    assert verdict.state == state
    assert (record is not None and record.state == "ended") or "by prefopt sweep cancel" in verdict.says
