"""`hydra/launcher=slurm`: submits jobs and returns, finds them again from any shell, and stops them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from prefopt.config import identity
from prefopt.disk import write_whole
from prefopt.errors import FAILURE, UserError
from prefopt.settings import RunSettings
from prefopt.slurm.check import check_slurm, fitted_to, world_of
from prefopt.slurm.commands import Known, LimitError, SlurmError, ask_to_stop, cancel_waiting, known, submit
from prefopt.slurm.judge import judge
from prefopt.slurm.record import Record, cancel_file, forget, read_record
from prefopt.slurm.refusals import with_key
from prefopt.slurm.script import Entry, batch_script
from prefopt.sweeps.jobs import CANCELLED, DONE, QUEUED, Job
from prefopt.sweeps.jobs import SLURM_JOB as ID
from prefopt.sweeps.launcher import Record as Recorder
from prefopt.sweeps.settings import SlurmSettings


class SlurmLauncher:
    """One array for the jobs that ask SLURM for the same, or as many as its limits take."""

    waits = False

    def __init__(self, settings: SlurmSettings) -> None:
        check_slurm(settings)
        self.settings = settings
        self._asks: dict[str, SlurmSettings] = {}

    def check(self, run: RunSettings) -> None:
        """Raises: UserError where what is asked of SLURM does not fit the run."""
        asked = fitted_to(self.settings, run.launch)
        world_of(asked, run)
        self._asks[identity(run)] = asked

    def script(self, jobs: Sequence[Job]) -> str:
        """What `start` submits for these jobs.

        Raises: UserError where that would be no script, or several.
        """
        if not jobs:
            raise UserError("nothing would be submitted: every job is done")
        if len(self.groups(jobs)) > 1:
            raise UserError(
                "the jobs ask SLURM for different nodes, which takes several scripts", "show one by leaving -m out"
            )
        folder = Path(jobs[0].log).parent
        entries = [Entry(job.number, job.identity, job.words) for job in jobs]
        return batch_script(self._asked(jobs[0]), folder, folder.name, entries)

    def groups(self, jobs: Iterable[Job]) -> list[list[Job]]:
        """Jobs that ask for the same, together."""
        found: list[list[Job]] = []
        for job in jobs:
            same = next((group for group in found if self._asked(group[0]) == self._asked(job)), None)
            if same is None:
                found.append([job])
            else:
                same.append(job)
        return found

    def start(self, jobs: Iterable[Job], record: Recorder) -> int | None:
        """Submit jobs; those that SLURM still has are left to it. 1 where it did not take all, else None.

        Raises: SlurmError in sbatch's own words where it took none.
        """
        everyone = list(jobs)
        still = self._known(everyone)
        refused: dict[int, SlurmError] = {}
        taken = 0
        for group in self.groups(job for job in everyone if not _is_with_slurm(job, still)):
            for part, error in self._submit_group(group):
                if error is None:
                    taken += len(part)
                for job in part:
                    job.error = "" if error is None else error.message
                    record(job)
                    if error is not None:
                        refused[job.number] = error
        if not refused:
            return None
        error = next(iter(refused.values()))
        if not taken:
            raise error
        print(f"prefopt: {len(refused)} of {len(everyone)} jobs were not submitted: {error}", file=sys.stderr)
        return FAILURE

    def refresh(self, jobs: Sequence[Job]) -> None:
        """See `Launcher`. Where SLURM does not answer, what is not told by files stays as it was."""
        submitted = [job for job in jobs if ID in job.handle and job.state != DONE]
        try:
            found = self._known(submitted)
        except SlurmError as error:
            print(f"prefopt: SLURM cannot be asked: {error.message}", file=sys.stderr)
            return
        for job in submitted:
            log = Path(job.log)
            is_cancelled = cancel_file(log).exists()
            verdict = judge(_record(job), found.get(job.handle[ID]), is_cancelled)
            job.state, job.exit_code, job.error = verdict.state, verdict.exit_code, verdict.says
            job.handle = {ID: job.handle[ID]}
            if verdict.is_only_word:
                job.handle["says"] = verdict.says
            if is_cancelled:
                job.handle[CANCELLED] = True
            if verdict.waits:
                job.handle["waits"] = True

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Those that wait leave the queue, those that run save and are not put back."""
        submitted = [job for job in jobs if ID in job.handle]
        for job in submitted:
            cancel_file(Path(job.log)).touch()  # first: a job that begins now ends at once
        cancel_waiting(job.handle[ID] for job in submitted)
        ask_to_stop(job for job, what in self._known(submitted).items() if what.is_running)

    def _asked(self, job: Job) -> SlurmSettings:
        return self._asks[job.identity]

    def _known(self, jobs: Sequence[Job]) -> dict[str, Known]:
        return known(job.handle[ID] for job in jobs if ID in job.handle)

    def _submit_group(self, group: list[Job]) -> Iterable[tuple[list[Job], SlurmError | None]]:
        """Parts of the group, each submitted, or refused with an error; in order."""
        left, size = group, len(group)
        limit: LimitError | None = None
        while left:
            part = left[:size]
            try:
                self._submit(part)
            except LimitError as error:
                if size > 1:
                    size, limit = size // 2, error
                    continue
                yield left, error
                return
            except SlurmError as error:
                yield left, error
                return
            yield part, None
            left = left[size:]
            if left and self.settings.array_parallelism is not None:
                yield left, limit  # a second array would run as many jobs again at the same time
                return

    def _submit(self, jobs: list[Job]) -> None:
        folder = Path(jobs[0].log).parent
        script = folder / "submit.sh"
        write_whole(script, self.script(jobs))
        for job in jobs:
            forget(Path(job.log))
            job.state, job.exit_code, job.handle = QUEUED, None, {}
        try:
            number = submit(script)
        except SlurmError as error:
            script.unlink()
            raise with_key(error, self._asked(jobs[0])) from None
        script.rename(folder / f"slurm-{number}.sh")
        for job in jobs:
            job.handle = {ID: f"{number}_{job.number}" if len(jobs) > 1 else number}


def _is_with_slurm(job: Job, still: dict[str, Known]) -> bool:
    found = still.get(job.handle.get(ID, ""))
    return found is not None and (found.is_waiting or found.is_running)


def _record(job: Job) -> Record | None:
    """What the job wrote, unless an earlier submission did."""
    record = read_record(Path(job.log))
    return record if record is not None and record.slurm_job == job.handle[ID] else None
