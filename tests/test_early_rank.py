"""A rank that is started while the data are prepared trains as any other, or leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from prefopt.early_rank import VARIABLE, early_rank
from prefopt.rank_group import RankGroup

WAITS = "from prefopt.early_rank import wait_for_the_word\nwait_for_the_word()\n"


def waiting(then: str, ready: Path) -> list[str]:
    """A process that says that it is there, waits for the word and goes on with `then`."""
    there = f"import os, pathlib\npathlib.Path({str(ready)!r}).write_text(str(os.getpid()))\n"
    return [sys.executable, "-c", f"{there}{WAITS}{then}"]


def until(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_bytes():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def nobody(_pid: int) -> None:
    pass


def test_a_told_rank_goes_on_and_has_the_environment_and_no_trace_of_having_waited(tmp_path: Path) -> None:
    then = f"raise SystemExit(41 if os.environ['GIVEN'] == 'yes' and {VARIABLE!r} not in os.environ else 1)"
    command, started = waiting(then, tmp_path / "ready"), list[int]()
    with early_rank(command, {"GIVEN": "yes"}) as early:
        until(tmp_path / "ready")
        assert RankGroup().run(["/nowhere/python"], {}, started.append, early) == 41  # no other was started
    assert len(started) == 1
    assert not psutil.pid_exists(started[0])


def test_a_signal_that_comes_before_the_word_reaches_the_rank(tmp_path: Path) -> None:
    then = "import time\ntime.sleep(60)"
    with early_rank(waiting(then, tmp_path / "ready"), {}) as early:
        until(tmp_path / "ready")
        group = RankGroup()
        assert group.run([], {}, lambda _pid: os.kill(os.getpid(), signal.SIGTERM), early) == 128 + signal.SIGTERM
    assert group.signal == signal.SIGTERM


def test_where_it_ended_before_it_was_told_another_is_started(tmp_path: Path) -> None:
    gone = [sys.executable, "-c", f"import pathlib\npathlib.Path({str(tmp_path / 'gone')!r}).write_text('.')"]
    with early_rank(gone, {}) as early:
        until(tmp_path / "gone")
        time.sleep(0.5)
        assert RankGroup().run([sys.executable, "-c", "raise SystemExit(5)"], {}, nobody, early) == 5


def test_one_that_cannot_be_started_is_none() -> None:
    with early_rank(["/nowhere/python"], {}) as early:
        assert early is None


def test_a_refused_run_takes_it_back(tmp_path: Path) -> None:
    then = f"pathlib.Path({str(tmp_path / 'trained')!r}).touch()"
    with suppress(ValueError), early_rank(waiting(then, tmp_path / "ready"), {}):
        until(tmp_path / "ready")
        raise ValueError("refused")
    assert not psutil.pid_exists(int((tmp_path / "ready").read_text()))
    assert not (tmp_path / "trained").exists()


@pytest.mark.slow
def test_a_real_rank_ends_with_the_command_that_was_killed(tmp_path: Path) -> None:
    rank = [sys.executable, "-m", "prefopt.train", str(tmp_path / "no-run")]
    code = (
        "import time\nfrom prefopt.early_rank import early_rank\n"
        f"with early_rank({rank!r}, {{}}):\n    print('started', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == b"started\n"
        (child,) = psutil.Process(command.pid).children()
        time.sleep(1)  # it imports
        command.kill()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert not (tmp_path / "no-run").exists()
