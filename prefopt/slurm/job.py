"""python -m prefopt.slurm.job LOG MAX_REQUEUES IDENTITY WORDS...: what srun starts, once on every node of a job.

It runs `prefopt WORDS`, hands signals on, and gives its exit code. On the first node it also writes down how the
job goes (`prefopt/slurm/record.py`), and asks for the queue once more where SLURM wanted the run to stop and it saved.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

from prefopt.config import compose, identity
from prefopt.errors import UserError
from prefopt.slurm.commands import state_of
from prefopt.slurm.record import Record, cancel_file, requeue_file, write_record
from prefopt.sweeps.states import BY_CANCEL, SAVED, STARTS

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""TERM: preemption, scancel, scontrol requeue. USR2: the time limit is near. The others: a user's own --signal."""

STOPPED_CODES = (SAVED, *(128 + number for number in STOP_SIGNALS))
"""Exit codes of a run that was told to stop: saved, or before there was anything to save."""


def main(log: Path, max_requeues: int, submitted: str, words: list[str]) -> int:
    """The exit code of `prefopt train`.

    submitted: the identity of the run. A job may wait for days, and meanwhile its recipe may have been edited.
    """
    is_first = not int(os.environ.get("SLURM_NODEID", "0"))
    note = partial(write_record, log) if is_first else _say_nothing
    record = Record(_job_id(), "running", int(os.environ.get("SLURM_RESTART_COUNT", "0")), host=socket.gethostname())
    # What ends a job at once ends it on every node: those that went on would wait for the one that did not.
    if cancel_file(log).exists():
        note(replace(record, state="ended", exit_code=SAVED, says=BY_CANCEL))
        return SAVED
    note(record)
    if is_first:
        requeue_file(log).unlink(missing_ok=True)
        print(f"{STARTS} (SLURM job {record.slurm_job}, start {record.restarts + 1}, on {record.host})", flush=True)
    try:
        _check_same(submitted, words)
    except UserError as error:
        note(replace(record, state="ended", exit_code=error.exit_code, says=error.message))
        raise
    code, received = _train(words)
    if not is_first:
        return code
    ended, asks = replace(record, state="ended", exit_code=code), False
    if received is not None and code in STOPPED_CODES:
        ended, asks = _after_stop(log, ended, received, max_requeues)
        print(f"prefopt: {ended.says}", file=sys.stderr, flush=True)
    write_record(log, ended)
    if asks:
        requeue_file(log).touch()  # last: the script acts on it
    return code


def _say_nothing(record: Record) -> None:
    """What the other nodes write down."""


def _check_same(submitted: str, words: list[str]) -> None:
    config_dir, overrides = (Path(words[2]), words[3:]) if words[1] == "--config-dir" else (None, words[1:])
    if identity(compose(overrides, config_dir)) != submitted:
        raise UserError(
            "a recipe was changed since this job was submitted: it would be another run", "cancel it and submit again"
        )


def _after_stop(log: Path, ended: Record, received: int, max_requeues: int) -> tuple[Record, bool]:
    """The record of a run that stopped because `received` came, and whether to ask for the queue once more."""
    name = signal.Signals(received).name
    # scancel sends what preemption sends; only the state tells them apart.
    state = state_of(ended.slurm_job)
    if cancel_file(log).exists():
        return replace(ended, says=BY_CANCEL), False
    if state == "CANCELLED":
        return replace(ended, says="cancelled (scancel)"), False
    if state == "COMPLETING":  # by scancel, or by scontrol requeue: SLURM says which once the job has ended
        return replace(ended, state="requeued", says=f"stopped by {name} while SLURM ends the job"), False
    if ended.restarts >= max_requeues:
        says = f"stopped by {name}, and was put back into the queue {ended.restarts} times already"
        return replace(ended, says=says), False
    return replace(ended, state="requeued", says=f"stopped by {name}, goes back into the queue"), True


def _train(words: list[str]) -> tuple[int, int | None]:
    """Run `prefopt train`; its exit code (128 + number for a signal) and the first signal that came meanwhile."""
    process: subprocess.Popen[bytes] | None = None
    received: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        # SLURM signals every process of a step, or only this one: where the run had it already, once more does nothing.
        received.append(number)
        if process is not None and process.poll() is None:
            process.send_signal(number)

    for stop in STOP_SIGNALS:
        signal.signal(stop, forward)
    process = subprocess.Popen(
        [sys.executable, "-m", "prefopt.cli", *words], env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    for number in received:  # one that came before there was anybody to forward it to
        process.send_signal(number)
    code = process.wait()
    return (128 - code if code < 0 else code), (received[0] if received else None)


def _job_id() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
    except UserError as error:
        print(f"prefopt: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
