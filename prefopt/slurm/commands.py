"""SLURM's own commands: each with a time limit, each failure in SLURM's own words.

What is known of a job comes from squeue, and from sacct where it answers: a cluster without accounting has none.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prefopt.errors import RunError

PATIENCE = 30.0
"""Seconds that a command may take. Without a controller some of them try for minutes."""

OUTSIDE = ("SLURM_CONF", "SLURM_CLUSTERS")
"""Variables of SLURM that say where it is, and not which job this is."""

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
RUNNING = ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT")
"""SLURM's states of jobs that will run (again) and of those that are running; in all others a job has ended."""

LIMITS = (
    "qos policy",  # Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)
    "submitjob",  # AssocMaxSubmitJobLimit, QOSMaxSubmitJobPerUserLimit
    "invalid job array specification",  # more than MaxArraySize
)
"""Words of sbatch that may mean "not so many"."""


UNREACHABLE = (
    "unable to contact slurm controller",
    "resolve_ctls_from_dns_srv",  # no slurm.conf, and no controller by DNS either
    "configuration source",  # could not establish one
    "no answer in",  # ours
)
"""Words of any command, in lower case, that mean that it did not reach SLURM's controller."""


class SlurmError(RunError):
    """A command of SLURM failed; the message is what it said."""


class LimitError(SlurmError):
    """sbatch refused because of a limit that fewer jobs may keep."""


@dataclass(frozen=True)
class Known:
    """What SLURM says of a job. state: its word. exit_code: of the script, once it has ended. reason: why it waits."""

    state: str
    exit_code: int | None = None
    reason: str = ""

    @property
    def is_waiting(self) -> bool:
        """It will run, or run again."""
        return self.state in WAITING

    @property
    def is_running(self) -> bool:
        """It holds nodes."""
        return self.state in RUNNING


def submit(script: Path) -> str:
    """`sbatch`: the id of the job, or of the array.

    Raises: LimitError or SlurmError with sbatch's own words; then nothing was submitted.
    """
    out = _run(["sbatch", "--parsable", str(script)])
    return out.strip().splitlines()[-1].split(";")[0]


def known(ids: Iterable[str]) -> dict[str, Known]:
    """What SLURM knows of these jobs ("12", or "12_3" for task 3 of an array); those it has forgotten are left out.

    Raises: SlurmError where squeue cannot be asked: then nobody knows, which is not the same as forgotten.
    """
    wanted = set(ids)
    if not wanted:
        return {}
    found = {job: what for job, what in _squeue(_bases(wanted)).items() if job in wanted}
    if missing := wanted - set(found):
        found.update({job: what for job, what in _sacct(_bases(missing)).items() if job in missing})
    return found


def state_of(job: str) -> str:
    """SLURM's word for one job; empty where it cannot be asked, from within a container for instance."""
    try:
        return _run(["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T"], patience=10.0).strip()
    except SlurmError:
        return ""


def unanswered(patience: float) -> str:
    """Why the controller does not answer `sinfo`, in one line; empty where it does. patience: seconds."""
    try:
        _run(["sinfo", "--noheader", "--format=%P"], patience)
    except SlurmError as error:
        return error.message
    return ""


def cancel_waiting(ids: Iterable[str]) -> None:
    """`scancel` for jobs that wait; those that run are left alone.

    Raises: SlurmError where scancel cannot reach the controller.
    """
    _scancel("--state=PENDING", ids)


def ask_to_stop(ids: Iterable[str]) -> None:
    """SIGTERM to what the jobs run, and nothing after it: they save in as long as that takes, and end by themselves.

    A plain `scancel` kills after KillWait, 30 seconds where nobody chose otherwise.

    Raises: SlurmError where scancel cannot reach the controller.
    """
    _scancel("--signal=TERM", ids)


def _scancel(option: str, ids: Iterable[str]) -> None:
    if jobs := sorted(ids):
        try:
            _run(["scancel", option, *jobs])
        except SlurmError as error:
            if not _is_of_the_past(error):  # said of one that has ended meanwhile; the others are dealt with
                raise


def _is_of_the_past(error: SlurmError) -> bool:
    said = str(error).lower()
    return "invalid job id" in said or "already completing or completed" in said


def _bases(ids: Iterable[str]) -> str:
    return ",".join(sorted({job.split("_")[0] for job in ids}))


def _squeue(bases: str) -> dict[str, Known]:
    fields = "--Format=JobArrayID:64,State:32,exit_code:16,Reason:128"
    try:
        out = _run(["squeue", "--noheader", "--array", "--states=all", f"--jobs={bases}", fields])
    except SlurmError as error:
        if _is_of_the_past(error):  # said where it has forgotten every one of them
            return {}
        raise
    found = {}
    for line in out.splitlines():
        job, state, code, reason = (line[a:b].strip() for a, b in ((0, 64), (64, 96), (96, 112), (112, 240)))
        ended = state not in WAITING + RUNNING and code.isdigit()
        exit_code = _shell_code(int(code)) if ended else None
        found[job] = Known(state, exit_code, "" if reason == "None" else reason)
    return found


def _sacct(bases: str) -> dict[str, Known]:
    """Empty without accounting: sacct then fails, or says nothing."""
    fields = ["--noheader", "--parsable2", "--allocations", "--array", "--format=JobID,State,ExitCode"]
    try:
        out = _run(["sacct", *fields, f"--jobs={bases}"], patience=15.0)
    except SlurmError:
        return {}
    found = {}
    for line in out.splitlines():
        job, _, rest = line.partition("|")
        state, _, code = rest.partition("|")
        status, _, number = code.partition(":")
        word = state.split(" ")[0]  # "CANCELLED by 1000"
        if word and status.isdigit() and number.isdigit():
            ended = word not in WAITING + RUNNING
            found[job] = Known(word, (int(number) + 128 if int(number) else int(status)) if ended else None)
    return found


def _shell_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _run(arguments: list[str], patience: float = PATIENCE) -> str:
    """Its output. Raises: LimitError or SlurmError in its own words."""
    # Of a job that this may run in, nothing: sbatch and srun would take its memory and tasks for what is asked for.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_") or key in OUTSIDE}
    try:
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            check=False,
            timeout=patience,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
    except FileNotFoundError:
        raise SlurmError(
            f"there is no {arguments[0]} on this machine", "run this where SLURM's commands are; see also --sbatch-only"
        ) from None
    except subprocess.TimeoutExpired as error:
        said = "; ".join(filter(None, (_words(error.stderr), f"no answer in {patience:.0f} seconds")))
        raise _failure(arguments[0], said) from None
    if done.returncode:
        raise _failure(arguments[0], _words(done.stderr) or f"exit code {done.returncode}")
    return done.stdout


def _words(stderr: str | bytes | None) -> str:
    """What a command said, in one line and each thing once."""
    text = stderr.decode(errors="replace") if isinstance(stderr, bytes) else stderr or ""
    said = [re.sub(r"^\w+: (error|fatal): ", "", line.strip()) for line in text.splitlines()]
    return "; ".join(dict.fromkeys(filter(None, said)))


def _failure(command: str, said: str) -> SlurmError:
    if any(words in said.lower() for words in UNREACHABLE):
        return SlurmError(
            f"SLURM's controller does not answer; is this a login node of the cluster? ({command}: {said})",
            "`sinfo` answers where it can be reached",
        )
    kind = LimitError if command == "sbatch" and any(words in said.lower() for words in LIMITS) else SlurmError
    return kind(f"{command}: {said}")
