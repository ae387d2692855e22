"""What a launcher is: whatever starts jobs, finds them again, and stops them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from prefopt.settings import RunSettings
from prefopt.sweeps.jobs import Job

Record = Callable[[Job], None]


class Launcher(Protocol):
    """Starts jobs. Made anew by each command from the settings that sweep.json keeps, so it has no memory but `Job`.

    Its settings say whether it waits (`waits`): whether `start` stays until the jobs have ended. One that does not
    needs no shell to stay open, and also starts a single run, as a sweep of one job.
    """

    def check(self, run: RunSettings) -> None:
        """Called once for each run, before anything starts and before `start`; what is found may be kept.

        Raises: UserError where this launcher cannot start the run (more devices than there are, ...).
        """

    def start(self, jobs: Iterable[Job], record: Record) -> int | None:
        """Start jobs: each is `job.command`, run in the current working directory, its output appended to `job.log`.

        jobs: drawn one by one by a launcher that waits, when there is room for one more (a study decides on the next
        job only then); one that does not wait takes all.
        record: called after every change of a job's state or handle (running, ended with an exit code), and as often as
        one likes; it settles the job's state from what it left (`states.settle`) and writes sweep.json, so that what
        was recorded survives whatever happens next.

        A launcher that submits sets `handle` (JSON), leaves state `queued` and calls `record`; jobs that a queue does
        not take keep an empty handle and say why in `error`.

        Returns 0 when all that were started have ended, however; 128 + number after a signal, which was handed on to
        the running jobs; None where they were submitted and go on by themselves.

        Raises: RunError where nothing could be started.
        """

    def refresh(self, jobs: Sequence[Job]) -> None:
        """Bring state (queued, running, preempted while it waits to be started again, lost with an error) and exit
        code of jobs with a handle up to date, in place. Never waits.

        A handle that another launcher made (a sweep may be resumed with another one once nothing of it runs) is left
        alone. `states.read_note` takes over what a job that has ended wrote down itself; `states.settle` follows.
        """

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Stop queued and running jobs, which save (exit code 75); returns without waiting for that."""


def make_launcher(settings: Any) -> Launcher:
    """The launcher of filled settings (`prefopt/sweeps/settings.py`)."""
    from prefopt.sweeps.local import LocalGpusLauncher, LocalLauncher

    if settings.name == "slurm":
        from prefopt.slurm.launcher import SlurmLauncher

        return SlurmLauncher(settings)
    return LocalGpusLauncher(settings) if settings.name == "local_gpus" else LocalLauncher()
