"""What a job writes down about itself, beside its log: how far it got, and how it ended.

job-3.log         its output, over all its starts
job-3.slurm.json  `Record`: who runs it and how it ended; all there is where SLURM has forgotten the job
job-3.cancel      somebody wants it to stop for good: it saves and is not put back into the queue
job-3.requeue     it saved because SLURM wanted it to stop: its script puts it back into the queue
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from prefopt.disk import write_whole
from prefopt.run_folder import read_json


@dataclass(frozen=True)
class Record:
    """One start of a job. state: running, requeued (saved, to be run again) or ended.

    slurm_job: "12", or "12_3". restarts: how often SLURM has put it back. says: why, where that needs words.
    """

    slurm_job: str
    state: str
    restarts: int = 0
    exit_code: int | None = None
    host: str = ""
    says: str = ""


def record_file(log: Path) -> Path:
    """Beside the job's log."""
    return log.with_suffix(".slurm.json")


def cancel_file(log: Path) -> Path:
    """Beside the job's log."""
    return log.with_suffix(".cancel")


def requeue_file(log: Path) -> Path:
    """Beside the job's log."""
    return log.with_suffix(".requeue")


def write_record(log: Path, record: Record) -> None:
    """Raises: RunError where it cannot be written."""
    write_whole(record_file(log), json.dumps(asdict(record)) + "\n")


def read_record(log: Path) -> Record | None:
    """None where the job has not begun.

    Raises: UserError where the file is damaged.
    """
    found = read_json(record_file(log))
    return None if found is None else Record(**found)


def forget(log: Path) -> None:
    """Take away what an earlier submission of the job left; its log stays."""
    for file in (record_file(log), cancel_file(log), requeue_file(log)):
        file.unlink(missing_ok=True)
