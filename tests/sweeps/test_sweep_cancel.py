"""Which sweep a command takes, and what `sweep cancel` stops: real processes that only wait, real sweep.json."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefopt.errors import UserError
from prefopt.lock import process_of
from prefopt.sweeps.cancel import cancel
from prefopt.sweeps.commands import resume, status
from prefopt.sweeps.groups import record, split
from prefopt.sweeps.jobs import CANCELLED, Job
from prefopt.sweeps.record import Sweep, here, load
from prefopt.sweeps.states import settle

Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that waits until it is stopped."""
    started = []

    def one() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(name: str, *handles: dict[str, object]) -> Sweep:
    """A sweep with a running job for each handle, or with one queued job."""
    folder = Path("sweeps") / name
    folder.mkdir(parents=True)
    made = Sweep(folder, [], None, str(Path.cwd()), record(split([], None)[1]), None, "maximize")
    for number, handle in enumerate(handles or [{}], start=1):
        job = Job(number, [], [], "a", f"runs/{name}-{number}", state="running" if handle else "queued", handle=handle)
        made.place(job)
        made.jobs.append(job)
    made.save()
    return made


def held_by(made: Sweep, process: subprocess.Popen[bytes]) -> None:
    owner = process_of(process.pid)
    (made.folder / "lock.json").write_text(json.dumps({"host": owner["host"], "owners": [owner]}))


def test_the_newest_sweep_is_the_one_made_last_whichever_was_touched_last(capsys: pytest.CaptureFixture[str]) -> None:
    make("b")
    make("a")
    assert status(Path("sweeps/b"), as_json=False) == 0  # writes its sweep.json
    assert "sweep: " not in capsys.readouterr().out
    assert [folder.name for folder in here()] == ["b", "a"]
    status(None, as_json=False)
    assert capsys.readouterr().out.startswith("sweep: sweeps/a, the newest of 2; another: prefopt sweep COMMAND DIR")
    status(None, as_json=True)
    assert json.loads(capsys.readouterr().out)["folder"] == "sweeps/a"


def test_cancel_names_the_older_sweep_that_runs_where_the_newest_does_not(start: Start) -> None:
    make("older", process_of(start().pid))
    make("refused")
    with pytest.raises(UserError) as caught:
        cancel(None)
    assert "sweeps/refused, the newest sweep, has nothing that is queued or runs" in caught.value.message
    assert "sweeps/older has: job 1" in caught.value.message
    assert caught.value.hint == "prefopt sweep cancel sweeps/older"


def test_one_job_of_a_running_sweep_is_stopped_and_the_others_go_on(start: Start) -> None:
    shell, first, second = start(), start(), start()
    made = make("running", process_of(first.pid), process_of(second.pid))
    held_by(made, shell)
    assert cancel(None, [2]) == 0
    assert second.wait(timeout=20) == -15
    assert first.poll() is None
    assert shell.poll() is None
    with pytest.raises(UserError, match=r"--job 7: sweeps/running has no such job"):
        cancel(None, [7])


def test_a_cancelled_sweep_of_this_machine_remembers_who_stopped_its_jobs(start: Start) -> None:
    shell, first = start(), start()
    held_by(make("running", process_of(first.pid)), shell)
    assert cancel(None) == 0
    assert shell.wait(timeout=20) == -15
    made = load(Path("sweeps/running"))
    assert made is not None
    assert made.jobs[0].is_stopping  # its own process is no child of this shell, and goes on


def test_a_job_that_has_not_stopped_yet_is_not_resumed_in_silence(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    make("saving", {**process_of(start().pid), CANCELLED: True})
    assert resume(None, []) == 75
    assert "job 1 is still stopping; give the same command again" in capsys.readouterr().err


def test_a_job_that_is_not_there_or_not_to_start_is_not_retried(start: Start) -> None:
    make("running", process_of(start().pid))
    with pytest.raises(UserError, match=r"--job 7: sweeps/running has no such job"):
        resume(None, [], numbers=[7])
    with pytest.raises(UserError, match=r"--job 1: there is nothing of it to start, it is running"):
        resume(None, [], numbers=[1])


def test_who_stopped_a_job_is_said_though_its_state_is_that_of_a_preempted_one() -> None:
    Path("log").write_text("--- prefopt job starts\nprefopt: stopped by a signal after step 3 of 9, which is saved\n")
    job = Job(1, [], [], "a", "runs/a", log="log", state="running", exit_code=75, handle={CANCELLED: True})
    settle(job)
    assert job.state == "preempted"
    assert job.error == "stopped by prefopt sweep cancel; stopped by a signal after step 3 of 9, which is saved"
