"""hydra/sweeper=optuna: a study that chooses the next job by what those before it gave.

The study lies in the sweep's folder (study.log) and goes on where it was left. What a trial draws is a function of the
seed, its number and the trials told before it, so that a study that was stopped draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt.errors import UserError
from prefopt.sweeps.goal import check_metric
from prefopt.sweeps.jobs import DONE, FAILED, Job
from prefopt.sweeps.launcher import Launcher
from prefopt.sweeps.plan import make_job
from prefopt.sweeps.record import Sweep
from prefopt.sweeps.settings import OptunaSettings
from prefopt.sweeps.space import Dimension, read_space

if TYPE_CHECKING:
    import optuna

STORAGE = "study.log"
AGAIN = "again"
"""Mark of a trial that tells a better end of a failed one: it is none of those that n_trials counts."""


class Study:
    """The jobs of a sweep that Optuna chooses. Its sweep's lock is held."""

    def __init__(self, made: Sweep, settings: OptunaSettings, launcher: Launcher) -> None:
        self.made = made
        self.settings = settings
        self.launcher = launcher
        self.space = read_space(made.words)
        self.study = _open(made.folder / STORAGE, made.direction)
        self._forget_lost_trials()

    def jobs(self, chosen: Callable[[Job], bool], is_asking: bool) -> Iterator[Job]:
        """The known jobs that are chosen, then new ones until there are n_trials."""
        yield from [job for job in self.made.jobs if chosen(job)]
        while is_asking and self._count() < self.settings.n_trials:
            job = self._ask()
            if job is not None:
                yield job

    def told(self, job: Job) -> None:
        """Tell the study how a job ended; nothing where it has not.

        Raises: UserError where the job lacks the metric.
        """
        check_metric(job, self.made.metric)
        if job.state not in (DONE, FAILED):
            return
        value = job.metrics.get(str(self.made.metric), math.nan) if job.state == DONE else math.nan
        trials = self.study.get_trials(deepcopy=False)
        for number in job.trials:
            trial = trials[number]
            if not trial.state.is_finished():
                self._tell(number, value)
            elif trial.value is None and math.isfinite(value) and number == job.trials[0]:
                self._tell_again(trial, value)

    def _tell(self, number: int, value: float) -> None:
        from optuna.trial import TrialState

        if math.isfinite(value):
            self.study.tell(number, value)
        else:
            self.study.tell(number, state=TrialState.FAIL)

    def _tell_again(self, trial: optuna.trial.FrozenTrial, value: float) -> None:
        """A trial that was told as failed has been run again, and did not fail."""
        from optuna.trial import create_trial

        marks = [one.user_attrs.get(AGAIN) for one in self.study.get_trials(deepcopy=False)]
        if trial.number not in marks:
            attributes = {AGAIN: trial.number}
            self.study.add_trial(
                create_trial(params=trial.params, distributions=trial.distributions, value=value, user_attrs=attributes)
            )

    def _count(self) -> int:
        return sum(AGAIN not in trial.user_attrs for trial in self.study.get_trials(deepcopy=False))

    def _ask(self) -> Job | None:
        """The job of a new trial; None where it is known already or cannot be run."""
        self.study.sampler = _sampler(self.settings.seed, len(self.study.get_trials(deepcopy=False)))
        trial = self.study.ask()
        combination = self.space.combination([_suggest(trial, dimension) for dimension in self.space.dimensions])
        number = len(self.made.jobs) + 1
        config_dir = None if self.made.config_dir is None else Path(self.made.config_dir)
        try:
            job, _, _ = make_job(number, combination, config_dir, self.launcher)
        except UserError as error:
            job = Job(
                number, combination.overrides, combination.varied, "", "", state=FAILED, exit_code=error.exit_code
            )
            job.error = " ".join(error.message.split())
        same = next((other for other in self.made.jobs if job.dir and other.dir == job.dir), None)
        if same is not None:
            same.trials.append(trial.number)
            job = same
        else:
            job.trials = [trial.number]
            self.made.place(job)
            self.made.jobs.append(job)
        self.made.save()
        self.told(job)
        return job if same is None and job.is_to_start else None

    def _forget_lost_trials(self) -> None:
        """Trials of which no job was recorded, because the command was killed just then, are told as failed."""
        known = {number for job in self.made.jobs for number in job.trials}
        for trial in self.study.get_trials(deepcopy=False):
            if not trial.state.is_finished() and trial.number not in known:
                self._tell(trial.number, math.nan)


def _open(file: Path, direction: Any) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = JournalStorage(JournalFileBackend(str(file)))
    return optuna.create_study(storage=storage, study_name="sweep", direction=direction, load_if_exists=True)


def _sampler(seed: int, number: int) -> Any:
    import optuna

    own = int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Jobs that still run count as bad ones, so that several at once are not the same job.
        return optuna.samplers.TPESampler(seed=own, constant_liar=True)


def _suggest(trial: optuna.Trial, dimension: Dimension) -> Any:
    if dimension.values is not None and dimension.is_ordered:
        return dimension.values[trial.suggest_int(dimension.key, 0, len(dimension.values) - 1)]
    if dimension.values is not None:
        return trial.suggest_categorical(dimension.key, list(dimension.values))
    if dimension.is_whole:
        return trial.suggest_int(dimension.key, int(dimension.low), int(dimension.high), log=dimension.is_log)
    return trial.suggest_float(dimension.key, dimension.low, dimension.high, log=dimension.is_log)
