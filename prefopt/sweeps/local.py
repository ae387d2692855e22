"""Launchers of this machine: `local` runs one job after the other, `local_gpus` several at once.

Jobs end with the sweep, however it ends (`prefopt/job.py`), so that a sweep that is not there has none running.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, BinaryIO

from prefopt.errors import RunError, UserError
from prefopt.lifetime import die_with_parent
from prefopt.lock import process_of
from prefopt.ranks import num_cores, plan_world, visible_gpus
from prefopt.settings import RunSettings
from prefopt.sweeps.jobs import RUNNING, Job
from prefopt.sweeps.launcher import Record
from prefopt.sweeps.settings import LocalGpusSettings
from prefopt.sweeps.states import read_note

if TYPE_CHECKING:
    from prefopt.sweeps.display import Display

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SECONDS_PER_LOOK = 0.1
LOOKS_PER_RECORD = 50
"""Running jobs are recorded now and then too: what they have left by then, a wrong metric for instance, is found."""


class LocalLauncher:
    """One job after the other; what a job prints is shown too."""

    def check(self, run: RunSettings) -> None:
        """Refuse a run for which this machine lacks the devices."""
        plan_world(run)

    def start(self, jobs: Iterable[Job], record: Record) -> int | None:
        """See `Launcher.start`."""
        from prefopt.sweeps.display import Echo

        return _Pool([{}], Echo(), record).run(iter(jobs))

    def refresh(self, jobs: Sequence[Job]) -> None:
        """See `Launcher.refresh`."""
        for job in jobs:
            read_note(job)

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Nothing: the jobs belong to the process that runs the sweep, which `sweep cancel` signals."""


class LocalGpusLauncher(LocalLauncher):
    """Several jobs at once, each on devices of its own, or on a share of the cores. Output goes to their logs."""

    def __init__(self, settings: LocalGpusSettings) -> None:
        self.settings = settings
        self.uses_gpus = False
        self.num_processes = 1

    def check(self, run: RunSettings) -> None:
        """Refuse a run that does not fit on the devices of one job."""
        if run.launch.device == "cpu" or not visible_gpus():
            self.num_processes = max(self.num_processes, plan_world(run).num_processes)
            self._cpu_slots()
            return
        self.uses_gpus = True
        with _environment(self._gpu_slots()[0]):
            plan_world(run)

    def start(self, jobs: Iterable[Job], record: Record) -> int | None:
        """See `Launcher.start`."""
        from prefopt.sweeps.display import Board

        slots = self._gpu_slots() if self.uses_gpus else self._cpu_slots()
        return _Pool(slots, Board(), record).run(iter(jobs))

    def _gpu_slots(self) -> list[dict[str, str]]:
        """What each job that runs at once has in its environment; no device is in two of them."""
        devices, each, jobs = visible_gpus(), self.settings.gpus_per_job, self.settings.jobs
        each = 1 if each is None else each
        _at_least_one("gpus_per_job", each)
        _at_least_one("jobs", jobs)
        fit = len(devices) // each
        if (jobs or 1) > fit:
            raise UserError(
                f"hydra.launcher.jobs={jobs or 1} with {each} GPU(s) each, and this machine shows {len(devices)}",
                f"hydra.launcher.jobs={fit}" if fit else f"hydra.launcher.gpus_per_job={len(devices)}",
            )
        places = range(0, (jobs or fit) * each, each)
        return [{"CUDA_VISIBLE_DEVICES": ",".join(devices[place : place + each])} for place in places]

    def _cpu_slots(self) -> list[dict[str, str]]:
        jobs = self.settings.jobs
        if self.settings.gpus_per_job is not None:
            raise UserError("hydra.launcher.gpus_per_job has no effect: the jobs run on CPU", "leave it out")
        if jobs is None:
            raise UserError(
                "hydra/launcher=local_gpus: on CPU it must be said how many jobs run at once",
                f"for instance hydra.launcher.jobs={min(2, num_cores())}",
            )
        _at_least_one("jobs", jobs)
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, num_cores() // (jobs * self.num_processes)))
        return [{"OMP_NUM_THREADS": threads} for _ in range(jobs)]


def _at_least_one(key: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UserError(f"hydra.launcher.{key}={value}: must be 1 or more")


@contextmanager
def _environment(added: Mapping[str, str]) -> Iterator[None]:
    """The environment of this process as a job will see it."""
    before = {key: os.environ.get(key) for key in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


@dataclass
class _Running:
    """A job's process, its place among the slots, and its log."""

    job: Job
    process: subprocess.Popen[bytes]
    slot: int
    log: BinaryIO


class _Pool:
    """Runs jobs, as many at once as there are slots, and hands signals on to them."""

    def __init__(self, slots: list[dict[str, str]], display: Display, record: Record) -> None:
        self.slots = slots
        self.display = display
        self.record = record
        self.running: list[_Running] = []
        self.signal: int | None = None
        self.looks = 0

    def run(self, jobs: Iterator[Job]) -> int:
        previous = {number: signal.signal(number, self._forward) for number in SIGNALS}
        try:
            with self.display:
                self._run(jobs)
        finally:
            # Only an error leaves some running: they save, end and write that down before the error is told.
            for one in self.running:
                one.process.send_signal(signal.SIGTERM)
            for one in self.running:
                one.process.wait()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return 0 if self.signal is None else 128 + self.signal

    def _run(self, jobs: Iterator[Job]) -> None:
        while True:
            while self.signal is None and len(self.running) < len(self.slots):
                job = next(jobs, None)
                if job is None:
                    break
                if self.signal is None:
                    self._start(job)
            if not self.running:
                return
            self._look()

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        for one in self.running:
            if one.process.poll() is None:
                one.process.send_signal(number)

    def _start(self, job: Job) -> None:
        slot = min(set(range(len(self.slots))) - {one.slot for one in self.running})
        Path(job.note).unlink(missing_ok=True)  # of an earlier start
        try:
            log = open(job.log, "ab")  # noqa: SIM115 (closed when the job has ended)
            begins = log.tell()
            # A session of its own: a signal from the terminal reaches it once, through `_forward`.
            process = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid()),  # before it can outlive a sweep that is killed now
                env={**os.environ, **self.slots[slot], "PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:
            raise RunError(f"job {job.number} cannot be started: {error}") from None
        self.running.append(_Running(job, process, slot, log))
        job.state, job.exit_code, job.error = RUNNING, None, ""
        job.handle = {**process_of(process.pid), "environment": self.slots[slot]}
        self.record(job)
        self.display.started(job, begins)
        if self.signal is not None:  # it came before there was a process to hand it to
            process.send_signal(self.signal)

    def _look(self) -> None:
        """Wait a moment; take note of jobs that have ended."""
        time.sleep(SECONDS_PER_LOOK)
        ended = [one for one in self.running if one.process.poll() is not None]
        self.display.look([one.job for one in self.running])
        self.looks += 1
        if self.looks % LOOKS_PER_RECORD == 0:
            for one in self.running:
                self.record(one.job)
        for one in ended:
            self.running.remove(one)
            one.log.close()
            code = one.process.returncode
            one.job.exit_code = 128 - code if code < 0 else code
            self.record(one.job)
            self.display.ended(one.job)
