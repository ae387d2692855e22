"""A job: one run of a sweep, as sweep.json records it.

sweeps/NAME/sweep.json      the sweep and its jobs: written whole after every change
            job-3.log       what job 3 printed, over all its starts
            job-3.json      what job 3 itself wrote down: its process, and its exit code once it has ended
            lock.json       who starts jobs of this sweep now
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

QUEUED, RUNNING, DONE, FAILED, PREEMPTED, LOST = "queued", "running", "done", "failed", "preempted", "lost"
STATES = (QUEUED, RUNNING, DONE, FAILED, PREEMPTED, LOST)
"""queued: not started yet, or waiting in a cluster's queue. preempted: stopped by a signal; it can go on. lost: its
process or its folder is gone and nothing says how it ended."""

SLURM_JOB = "slurm_job"
"""Key of `Job.handle`: SLURM's id, "12", or "12_3" for task 3 of an array."""

CANCELLED = "cancelled"
"""Key of `Job.handle`: `prefopt sweep cancel` told the job to stop."""


@dataclass
class Job:
    """One run of a sweep.

    number: from 1. overrides: of the run. varied: those that differ between jobs. identity, dir: of the run; empty
    where it was refused.
    words: what comes after `prefopt` on its command line. log, note: its files in the sweep's folder.
    state: one of `STATES`. exit_code: of its last start, None while it has not ended. error: why it is not done, in one
    line. metrics: of its last evaluation. had_folder: whether the run's folder has been seen.
    handle: what its launcher needs to find it again (process, devices, cluster's job id), JSON; empty: never started.
    "says" in it: why the cluster ended the job, which then could not say it itself. "waits": the cluster has it in its
    queue, though it has run already. "cancelled": `prefopt sweep cancel` told it to stop.
    trials: numbers of an Optuna study's trials that are this run.
    """

    number: int
    overrides: list[str]
    varied: list[str]
    identity: str
    dir: str
    words: list[str] = field(default_factory=list)
    log: str = ""
    note: str = ""
    state: str = QUEUED
    exit_code: int | None = None
    error: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    had_folder: bool = False
    handle: dict[str, Any] = field(default_factory=dict)
    trials: list[int] = field(default_factory=list)

    @property
    def command(self) -> list[str]:
        """The process of the job: `prefopt train ...` that writes down how it ends (`prefopt/job.py`)."""
        return [sys.executable, "-m", "prefopt.job", self.note, *self.words]

    @property
    def queue_id(self) -> str:
        """The id by which a cluster's own commands know the job; empty where none was submitted."""
        return str(self.handle.get(SLURM_JOB, ""))

    @property
    def is_live(self) -> bool:
        """Whether it runs or waits in a queue: it goes on by itself."""
        return bool(self.handle) and (self.state in (QUEUED, RUNNING) or "waits" in self.handle)

    @property
    def is_stopping(self) -> bool:
        """Whether it still runs though `prefopt sweep cancel` told it to stop: it saves."""
        return self.state == RUNNING and CANCELLED in self.handle

    @property
    def is_to_start(self) -> bool:
        """Whether `resume` starts it: it is not done, does not run, and waits in no queue."""
        if not self.dir:  # a draw of a study that was refused
            return False
        return self.state in (QUEUED, FAILED, PREEMPTED, LOST) and not self.is_live
