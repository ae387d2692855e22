"""How a job stands: told by what its run left, whatever was recorded of it before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from prefopt.lock import process_of
from prefopt.sweeps.jobs import Job
from prefopt.sweeps.states import STARTS, exit_code, last_error, read_note, settle
from prefopt.sweeps.table import complaints


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "run").mkdir()
    return Job(1, [], [], "a", str(tmp_path / "run"), log=str(tmp_path / "log"), note=str(tmp_path / "note.json"))


def started(job: Job) -> Job:
    (Path(job.dir) / "run.yaml").touch()
    job.state, job.handle = "running", {"environment": {}}
    return job


def test_a_job_that_never_started_is_queued(job: Job) -> None:
    settle(job)
    assert (job.state, job.is_to_start) == ("queued", True)


def test_a_result_is_done_whatever_was_recorded(job: Job) -> None:
    started(job).state = "failed"
    job.exit_code, job.error = 1, "disk full"
    (Path(job.dir) / "result.json").write_text('{"metrics": {"eval/a/loss": 1.0}}')
    settle(job)
    assert (job.state, job.exit_code, job.error, job.metrics) == ("done", 0, "", {"eval/a/loss": 1.0})
    assert not job.is_to_start


def test_a_held_lock_is_running(job: Job) -> None:
    started(job).exit_code = 1
    lock = {"host": os.uname().nodename, "owners": [process_of(os.getpid())]}
    (Path(job.dir) / "lock.json").write_text(json.dumps(lock))
    settle(job)
    assert (job.state, job.exit_code, job.is_to_start) == ("running", None, False)


@pytest.mark.parametrize(
    ("code", "state"), [(75, "preempted"), (143, "preempted"), (130, "preempted"), (137, "failed"), (1, "failed")]
)
def test_exit_codes_are_states(job: Job, code: int, state: str) -> None:
    started(job).exit_code = code
    settle(job)
    assert (job.state, job.exit_code) == (state, code)
    assert job.error
    assert job.is_to_start


@pytest.mark.parametrize("code", [0, 1, 75])
def test_a_deleted_folder_is_lost(job: Job, code: int) -> None:
    settle(started(job))
    (Path(job.dir) / "run.yaml").unlink()
    Path(job.dir).rmdir()
    job.exit_code = code
    settle(job)
    assert (job.state, job.exit_code, job.error) == ("lost", None, "its folder is gone; resume starts it anew")


def test_a_process_that_is_gone_without_a_word_is_lost_and_one_that_lives_is_running(job: Job) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started(job).handle = process_of(child.pid)
    read_note(job)
    settle(job)
    assert job.state == "running"
    child.kill()
    child.communicate()
    read_note(job)
    settle(job)
    assert (job.state, job.exit_code, job.is_to_start) == ("lost", None, True)
    assert "gone without a word" in job.error


def test_what_a_job_wrote_down_itself_is_believed(job: Job) -> None:
    started(job)
    Path(job.note).write_text(json.dumps({**process_of(os.getpid()), "exit_code": 75}))
    read_note(job)
    settle(job)
    assert (job.state, job.exit_code) == ("preempted", 75)


def test_a_damaged_result_fails_its_job_and_not_the_table(job: Job) -> None:
    (Path(started(job).dir) / "result.json").write_text("{")
    settle(job)
    assert job.state == "failed"
    assert "result.json cannot be read" in job.error


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("prefopt: no space\n  free some\n", "no space"),
        ("prefopt: a note\nTraceback (most recent):\n  File x\nValueError: no\n  [Error 1]\n", "ValueError: no"),
        ("step 1\nstep 2\n", "step 2"),
        ("", "it printed nothing"),
    ],
)
def test_last_error_is_of_the_last_start(job: Job, log: str, said: str) -> None:
    job.exit_code = 1
    Path(job.log).write_text(f"{STARTS} yesterday\nprefopt: an older error\n{STARTS} today\n{log}")
    assert last_error(job) == said


def test_a_rank_that_wrote_down_its_error_is_quoted(job: Job) -> None:
    job.exit_code = 1
    (Path(job.dir) / "exit.json").write_text('{"exit_code": 1, "message": "loss is nan\\n  rows 3, 4"}')
    assert last_error(job) == "loss is nan"
    job.exit_code = 137
    assert last_error(job) == "it left no log"
    Path(job.log).write_text(f"{STARTS} today\nstep 1\n")
    assert last_error(job) == "ended by signal 9"


def test_a_failed_job_outweighs_a_stopped_one() -> None:
    def jobs(*states: str) -> list[Job]:
        return [Job(1, [], [], "a", "r", state=state) for state in states]

    assert exit_code(jobs("done", "done"), waited=True) == 0
    assert exit_code(jobs("done", "preempted"), waited=True) == 75
    assert exit_code(jobs("preempted", "failed"), waited=True) == 1
    assert exit_code(jobs("done", "lost"), waited=False) == 1
    assert exit_code(jobs("queued", "running"), waited=False) == 0
    assert exit_code(jobs("done", "running"), waited=True) == 75


def test_each_job_that_failed_has_a_line_with_its_log(job: Job) -> None:
    failed = replace(
        started(job), number=3, varied=["optim.lr=2"], state="failed", error="disk full", log="sweeps/a/3.log"
    )
    done = replace(failed, number=4, state="done")
    assert complaints([done, failed]) == ["job 3 (optim.lr=2) failed: disk full; sweeps/a/3.log"]
