"""Who may write into a run folder: living and dead owners, here and on other machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from prefopt import lock as lock_module
from prefopt.errors import UserError
from prefopt.lock import SILENCE, locked
from prefopt.run_folder import LOCK

JOB = {"job": "4711", "restarts": 0, "cluster": "here"}


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests may themselves run inside a job."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


def of_elsewhere(folder: Path, seconds_ago: float = 0, **more: Any) -> None:
    """The lock of a process of another machine, last touched some time ago."""
    record = {"host": "elsewhere", "since": "today", "owners": [], "beats": True, "slurm": None, **more}
    (folder / LOCK).write_text(json.dumps(record))
    then = (folder / LOCK).stat().st_mtime - seconds_ago
    os.utime(folder / LOCK, (then, then))


def assert_refused(folder: Path, said: str) -> None:
    with pytest.raises(UserError, match=said), locked(folder):
        pytest.fail("two owners")


def squeue(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """A cluster whose squeue says `answer`, a line of shell."""
    tool = folder / "squeue"
    tool.write_text(f"#!/bin/sh\n{answer}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_living_owner_keeps_others_out(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(UserError, match=f"in use by process {os.getpid()}"),
        locked(tmp_path),
    ):
        pytest.fail("two owners")
    assert not (tmp_path / LOCK).exists()


def test_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with locked(tmp_path) as lock:
        record = {**lock.record, "owners": [{"pid": dead.pid, "started": 0.0}]}
    (tmp_path / LOCK).write_text(json.dumps(record))
    with locked(tmp_path):
        owners = json.loads((tmp_path / LOCK).read_text())["owners"]
        assert [owner["pid"] for owner in owners] == [os.getpid()]


def test_number_that_was_given_to_another_process_does_not_hold_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path) as lock:
        record = {**lock.record, "owners": [{"pid": os.getpid(), "started": 1.0}]}
    (tmp_path / LOCK).write_text(json.dumps(record))
    with locked(tmp_path):
        pass


def test_ranks_hold_the_lock_of_a_parent_that_was_killed(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with locked(tmp_path) as lock:
            lock.add_child(child.pid)
            record = json.loads((tmp_path / LOCK).read_text())
        record["owners"][0]["started"] = 1.0  # the parent is gone, its number was given again
        (tmp_path / LOCK).write_text(json.dumps(record))
        with pytest.raises(UserError, match=f"in use by process {child.pid}"), locked(tmp_path):
            pytest.fail("two owners")
    finally:
        child.kill()
        child.wait()


def test_lock_of_another_host_is_respected(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(json.dumps({"host": "elsewhere", "since": "today", "owners": []}))
    with pytest.raises(UserError, match="a process of elsewhere"), locked(tmp_path):
        pytest.fail("two owners")


def test_another_host_keeps_its_lock_while_it_gives_signs_of_life(tmp_path: Path) -> None:
    of_elsewhere(tmp_path, SILENCE - 60)
    assert_refused(tmp_path, "a process of elsewhere, heard of 2[34]. seconds ago")
    of_elsewhere(tmp_path, SILENCE + 60)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["host"] != "elsewhere"


def test_the_clock_of_this_machine_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_elsewhere(tmp_path)
    a_day_off = time.time() + 86400
    monkeypatch.setattr(time, "time", lambda: a_day_off)
    assert_refused(tmp_path, "a process of elsewhere")


def test_a_job_that_slurm_started_again_takes_over_its_own_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    of_elsewhere(tmp_path, slurm=JOB)
    assert_refused(tmp_path, r"a process of elsewhere \(SLURM job 4711\)")  # another step of the same start
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["slurm"] == {"job": "4711", "restarts": 1, "cluster": ""}


@pytest.mark.parametrize(
    ("answer", "is_free"),
    [
        ("echo RUNNING", False),
        ("echo COMPLETING", False),
        ("echo PENDING", True),
        ("true", True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", False),
    ],
)
def test_the_lock_of_a_job_goes_with_the_job(
    answer: str, is_free: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue(tmp_path, monkeypatch, answer)
    folder = tmp_path / "run"
    folder.mkdir()
    of_elsewhere(folder, slurm=JOB)
    if is_free:
        with locked(folder):
            pass
    else:
        assert_refused(folder, "SLURM job 4711")


def test_a_job_of_another_cluster_is_not_asked_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue(tmp_path, monkeypatch, "true")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "there")
    of_elsewhere(tmp_path, slurm=JOB)
    assert_refused(tmp_path, "SLURM job 4711")


def test_the_holder_gives_signs_of_life_and_notices_that_it_lost_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "BEAT", 0.02)
    said, lost = [], threading.Event()

    def note(sentence: str) -> None:
        said.append(sentence)
        lost.set()

    with locked(tmp_path) as lock:
        lock.on_lost = note
        os.utime(tmp_path / LOCK, (0, 0))
        deadline = time.monotonic() + 10
        while (tmp_path / LOCK).stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not said
        of_elsewhere(tmp_path)
        assert lost.wait(10)
    assert said == [f"the lock of {tmp_path} is lost: a process of elsewhere took it over"]
    assert json.loads((tmp_path / LOCK).read_text())["host"] == "elsewhere"  # theirs is left alone


def test_of_many_starts_at_once_one_wins(tmp_path: Path) -> None:
    of_elsewhere(tmp_path, SILENCE + 60)
    code = (
        "import sys, time, pathlib\n"
        "from prefopt.lock import locked\n"
        "from prefopt.errors import UserError\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    with locked(pathlib.Path(sys.argv[1])): sys.stdin.readline()\n"
        "except UserError: raise SystemExit(2)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    starts = [subprocess.Popen(words, stdin=subprocess.PIPE, text=True) for _ in range(6)]
    for start in starts:
        assert start.stdin is not None
        start.stdin.write("go\n")
        start.stdin.flush()
    deadline = time.monotonic() + 60
    while sum(start.poll() is not None for start in starts) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for start in starts:
        start.communicate("\n")
    assert sorted(start.returncode for start in starts) == [0, 2, 2, 2, 2, 2]
