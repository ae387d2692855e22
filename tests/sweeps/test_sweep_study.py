"""hydra/sweeper=optuna: what is asked, told, and remembered. A launcher of the test's own ends jobs at once, without
training: a run's result is a function of loss.lam."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from prefopt.config import compose
from prefopt.manifest import new_manifest
from prefopt.settings import RunSettings
from prefopt.sweeps.groups import record, split
from prefopt.sweeps.jobs import FAILED, Job
from prefopt.sweeps.launcher import Record
from prefopt.sweeps.record import Sweep, load
from prefopt.sweeps.run import run
from prefopt.sweeps.study import Study

METRIC = "eval/heldout/rewards/accuracy"
WORDS = ["recipe=quickstart", "loss.lam=interval(0.0,1.0)"]


class Instant:
    """Ends each job at once: with a result that is best at lam 0.3, or failed where `fails` says so.

    most: so many jobs end; the next one starts, and the sweep is stopped.
    """

    def __init__(self, fails: Any = lambda _: False, most: int = 1000) -> None:
        self.fails = fails
        self.most = most
        self.started: list[int] = []

    def check(self, run: RunSettings) -> None:
        pass

    def start(self, jobs: Iterable[Job], record: Record) -> int | None:
        for job in jobs:
            self.started.append(job.number)
            job.state, job.handle = "running", {"pid": 1}
            record(job)
            if len(self.started) > self.most:
                return 128 + 15
            lam = float(job.varied[0].partition("=")[2])
            folder = Path(job.dir)
            folder.mkdir(parents=True)
            if self.fails(lam):
                job.exit_code = 1
            else:
                made = compose(job.overrides)
                (folder / "manifest.json").write_text(json.dumps(new_manifest(asdict(made), "", "", {}, [])))
                (folder / "run.yaml").touch()
                (folder / "result.json").write_text(json.dumps({"metrics": {METRIC: 1 - (lam - 0.3) ** 2}}))
                job.exit_code = 0
            record(job)
        return 0

    def refresh(self, jobs: Sequence[Job]) -> None:
        pass

    def cancel(self, jobs: Sequence[Job]) -> None:
        pass


def sweep_of(folder: Path, n_trials: int, words: Sequence[str] = WORDS) -> Sweep:
    """The sweep of a folder, as a command would find or make it."""
    _, starting = split(["hydra/sweeper=optuna", f"hydra.sweeper.n_trials={n_trials}"], None)
    before = load(folder) if folder.exists() else None
    folder.mkdir(exist_ok=True)
    jobs = [] if before is None else before.jobs
    return Sweep(folder, list(words), None, str(folder.parent), record(starting), METRIC, "maximize", jobs)


def go(made: Sweep, launcher: Instant, is_asking: bool = True) -> int:
    return run(made, launcher, Console(file=open("/dev/null", "w")), lambda job: job.is_to_start, is_asking)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_study_comes_nearer_and_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("straight", "stopped"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "straight")
    made = sweep_of(Path("s"), 16)
    assert go(made, Instant()) == 0
    drawn = [float(job.varied[0].partition("=")[2]) for job in made.jobs]
    assert len(drawn) == 16
    assert sum(abs(lam - 0.3) for lam in drawn[-5:]) < 0.6 * sum(abs(lam - 0.3) for lam in drawn[:5])
    monkeypatch.chdir(tmp_path / "stopped")
    assert go(sweep_of(Path("s"), 16), Instant(most=4)) == 128 + 15
    half = sweep_of(Path("s"), 16)
    assert len(half.jobs) == 5
    half.jobs[-1].state = "lost"  # its process went with the sweep
    again = Instant()
    assert go(half, again) == 0
    assert again.started == list(range(5, 17))
    assert [job.varied for job in half.jobs] == [job.varied for job in made.jobs]


def test_more_trials_go_on_with_the_same_study() -> None:
    assert go(sweep_of(Path("s"), 3), Instant()) == 0
    more = Instant()
    assert go(sweep_of(Path("s"), 5), more) == 0
    assert more.started == [4, 5]
    nothing = Instant()
    assert go(sweep_of(Path("s"), 5), nothing) == 0
    assert nothing.started == []


def test_a_failed_trial_is_told_is_in_the_table_and_may_be_told_again() -> None:
    made = sweep_of(Path("s"), 6)
    assert go(made, Instant(fails=lambda lam: lam > 0.5)) == 1
    failed = [job.number for job in made.jobs if job.state == FAILED]
    assert 0 < len(failed) < 6
    states = [trial.state.name for trial in Study(made, _settings(made), Instant()).study.trials]
    assert [number for number, state in enumerate(states, start=1) if state == "FAIL"] == failed
    for job in made.jobs:
        if job.state == FAILED:
            Path(job.dir).rmdir()
    retry = Instant()
    assert go(made, retry, is_asking=False) == 0
    assert retry.started == failed
    trials = Study(made, _settings(made), Instant()).study.trials
    assert [trial.user_attrs.get("again") for trial in trials[6:]] == [number - 1 for number in failed]
    assert go(made, (nothing := Instant())) == 0
    assert nothing.started == []


def test_a_draw_that_is_known_is_told_and_not_run_again() -> None:
    made = sweep_of(Path("s"), 9, ["recipe=quickstart", "loss.lam=0.1,0.2"])
    launcher = Instant()
    assert go(made, launcher) == 0
    assert launcher.started == [1, 2]
    assert sorted(number for job in made.jobs for number in job.trials) == list(range(9))
    assert {trial.state.name for trial in Study(made, _settings(made), Instant()).study.trials} == {"COMPLETE"}


def test_a_draw_that_is_refused_is_a_failed_job_of_the_table() -> None:
    made = sweep_of(Path("s"), 8, ["recipe=quickstart", "loss.lam=interval(-0.5,0.5)"])
    assert go(made, Instant()) == 1
    refused = [job for job in made.jobs if job.state == FAILED]
    assert 0 < len(refused) < 8
    assert all("must be 0 or more" in job.error and job.exit_code == 2 for job in refused)


def _settings(made: Sweep) -> Any:
    from prefopt.sweeps.settings import OptunaSettings

    return OptunaSettings(**made.starting["hydra/sweeper"])
