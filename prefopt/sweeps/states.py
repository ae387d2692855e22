"""How a job stands, told by what there is: its result, its folder's lock, what it wrote down, its log."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from prefopt.errors import UserError
from prefopt.lock import holder, is_alive
from prefopt.run_folder import EXIT, RESULT, RUN, read_json
from prefopt.sweeps.jobs import CANCELLED, DONE, FAILED, LOST, PREEMPTED, QUEUED, RUNNING, Job

STARTS = "--- prefopt job starts"
"""Begins the lines of each start in a job's log."""

BY_CANCEL = "stopped by prefopt sweep cancel"
"""What is said of a job that nobody preempted: the state is the same, for it can go on."""

SAVED = 75
STOPPED = {128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
"""Exit codes of a job that a signal stopped before there was anything to save."""


def settle(job: Job) -> None:
    """Bring state, exit code, error and metrics of a job in line with what there is.

    Whoever watches its process has set `exit_code` where it ended, and its launcher's `refresh` has seen to what only
    the launcher knows; nothing here asks a cluster.
    """
    if not job.dir:
        return
    folder = Path(job.dir)
    job.had_folder = job.had_folder or (folder / RUN).exists()
    try:
        result = read_json(folder / RESULT)
        worker = "" if result is not None else holder(folder)
    except UserError as error:
        job.state, job.error = FAILED, _one_line(error.message)
        return
    if result is not None:
        job.state, job.exit_code, job.error = DONE, 0, ""
        job.metrics = dict(result.get("metrics", {}))
    elif worker:
        job.state, job.exit_code, job.error = RUNNING, None, ""
    elif job.state in (QUEUED, RUNNING, PREEMPTED) and job.exit_code is None:
        pass  # as its launcher says
    elif job.had_folder and not (folder / RUN).exists():
        job.state, job.exit_code, job.metrics = LOST, None, {}
        job.error = "its folder is gone; resume starts it anew"
    elif job.exit_code is None:
        job.state = LOST
    elif job.exit_code == 0:
        job.state, job.exit_code, job.metrics = LOST, None, {}
        job.error = "it ended well and left no result; resume goes on with it"
    else:
        job.state = PREEMPTED if job.exit_code == SAVED or job.exit_code in STOPPED else FAILED
        job.error = job.handle.get("says") or last_error(job)
        if job.state == PREEMPTED and CANCELLED in job.handle and BY_CANCEL not in job.error:
            job.error = f"{BY_CANCEL}; {job.error}"


def read_note(job: Job) -> None:
    """Take over what a job that nobody watches wrote down: its exit code, or that its process is gone.

    For jobs that their launcher would call running; those of another host stay as they are.
    """
    if job.state != RUNNING:
        return
    said = read_json(Path(job.note)) or {}
    if "exit_code" in said:
        job.exit_code = int(said["exit_code"])
    elif not any(is_alive(process) for process in (said, job.handle) if "pid" in process):
        job.state, job.exit_code = LOST, None
        job.error = "its process is gone without a word; resume goes on with it"


def exit_code(jobs: list[Job], waited: bool) -> int:
    """1 where a job failed or is lost; 75 where some can go on: stopped, or, once waited for, not ended; else 0."""
    states = {job.state for job in jobs}
    if states & {FAILED, LOST}:
        return 1
    unfinished = {PREEMPTED, QUEUED, RUNNING} if waited else {PREEMPTED}
    return SAVED if states & unfinished else 0


def last_error(job: Job) -> str:
    """Why the last start of a job ended, in one line: what a rank wrote down, or what the log says last."""
    said = read_json(Path(job.dir) / EXIT)
    if said is not None and said.get("message") and said.get("exit_code") == job.exit_code:
        return _one_line(str(said["message"]))
    try:
        text = Path(job.log).read_text(encoding="utf-8", errors="replace").rpartition(STARTS)[2]
    except OSError:
        return "it left no log"
    lines = [line.rstrip() for line in text.splitlines()[1:] if line.strip()]
    while len(lines) > 1 and lines[-1].startswith(" "):  # a hint, or a traceback's own lines
        lines.pop()
    complaints = [line for line in lines if re.match(r"prefopt: |[\w.]*(Error|Exception)\b", line)]
    if job.exit_code is not None and job.exit_code > 128 and not complaints:
        return f"ended by signal {job.exit_code - 128}"
    return _one_line((complaints or lines or ["it printed nothing"])[-1].removeprefix("prefopt: "))


def _one_line(text: str) -> str:
    return " ".join(text.strip().splitlines()[:1])
