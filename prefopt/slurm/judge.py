"""How a job stands, from what it wrote down and what SLURM says: pure, so that every case can be tried."""

from __future__ import annotations

from dataclasses import dataclass

from prefopt.slurm.commands import Known
from prefopt.slurm.record import Record
from prefopt.sweeps.states import BY_CANCEL, SAVED

BENIGN = ("", "Priority", "Resources", "None", "JobArrayTaskLimit")
"""Reasons for waiting that are nothing but the queue."""


@dataclass(frozen=True)
class Verdict:
    """A state of the table: queued, running, done, failed, preempted or lost. says: why, where that needs words.

    is_only_word: the job itself left nothing that says it better. waits: it has run, and SLURM will run it again.
    """

    state: str
    exit_code: int | None = None
    says: str = ""
    is_only_word: bool = False
    waits: bool = False


def judge(record: Record | None, known: Known | None, cancelled: bool) -> Verdict:
    """How a submitted job stands.

    record: what it wrote since it was submitted. known: None where SLURM has forgotten it. cancelled: by prefopt.
    What the job wrote at its end counts most: accounting comes late, or not at all, and calls a saved run a failed one.
    """
    if record is not None and record.state == "ended":
        return _ended(record)
    if known is not None and known.is_running:
        return Verdict("running", says="is to stop, by prefopt sweep cancel" if cancelled else "")
    if known is not None and known.is_waiting:
        if cancelled:
            return _cancelled(record)
        waits = "" if known.reason in BENIGN else f"SLURM: {known.reason}"
        if record is None:
            return Verdict("queued", says=waits)
        says = record.says or f"waits to run again; {waits}".rstrip("; ")
        return Verdict("preempted", record.exit_code, says, waits=True)
    if cancelled:
        return _cancelled(record)
    if record is not None and record.state == "requeued":
        return Verdict("preempted", record.exit_code, f"{record.says}; but SLURM did not take it back")
    return _gone(record, known)


def _cancelled(record: Record | None) -> Verdict:
    if record is None:
        return Verdict("preempted", SAVED, f"{BY_CANCEL} before it began", is_only_word=True)
    return Verdict("preempted", SAVED, BY_CANCEL)


def _ended(record: Record) -> Verdict:
    assert record.exit_code is not None
    state = {0: "done", SAVED: "preempted"}.get(record.exit_code, "failed")
    if record.says and record.exit_code > 128:  # stopped by a signal before there was anything to save
        state = "preempted"
    return Verdict(state, record.exit_code, record.says)


def _gone(record: Record | None, known: Known | None) -> Verdict:
    """SLURM ended it, or knows nothing of it, and it had no time to write how it ended."""
    if known is None:
        if record is None:
            return Verdict("lost", None, "SLURM has forgotten it: cancelled or removed before it began (scancel?)")
        return Verdict("lost", None, f"SLURM has forgotten it; it vanished on {record.host}")
    if known.state in ("PREEMPTED", "CANCELLED"):
        # Taken out of the queue, it never ran, and SLURM's 0 means nothing.
        when = "before it began (scancel?)" if record is None else "before it could save"
        return Verdict("preempted", known.exit_code or None, f"SLURM: {known.state}, {when}", True)
    reason = f" ({known.reason})" if known.reason else ""
    return Verdict("failed", known.exit_code, f"SLURM: {known.state}{reason}", True)
