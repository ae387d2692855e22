"""Ranks that die, hang or are stopped before they can save: soon over, never with exit code 0, and told by name."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from nodes_bed import Bed, finish, ranks_of, unused_port, wait_for_step

from prefopt.run_folder import LOCK, RESULT, RUN, read_json

TWO = ("launch.num_processes=2",)
LONG = ("train.epochs=200", "train.save_every=never", "train.eval_every=never")

LEAVES = """
import os, sys, threading, time

def leave():
    while not os.path.exists(os.environ["LEAVE"]):
        time.sleep(0.05)
    print("out of luck", file=sys.stderr)
    os._exit(3)

if os.environ.get("RANK") == "1":
    threading.Thread(target=leave, daemon=True).start()
"""
"""sitecustomize.py: rank 1 leaves without a goodbye once a file is there."""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    made = Bed(tmp_path_factory.mktemp("deaths"))
    yield made
    made.end()


@pytest.mark.slow
@pytest.mark.long
def test_two_jobs_at_once_on_one_machine_and_one_loses_a_rank(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")  # ports made of the same number
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(LEAVES)
    monkeypatch.setenv("LEAVE", str(tmp_path / "leave"))
    whole = bed.start(tmp_path / "whole", *TWO, "train.max_steps=3")
    killed = bed.start(tmp_path / "killed", *TWO, *LONG)
    wait_for_step(tmp_path / "killed", 2, killed)
    code, _, err = finish(whole)
    assert code == 0, err
    assert "already in use" not in err

    started = time.monotonic()
    ranks_of(killed)[1].send_signal(signal.SIGKILL)
    code, _, err = finish(killed)
    assert time.monotonic() - started < 60
    assert code == 1
    assert "prefopt: rank 1 was killed by SIGKILL" in err
    assert "Traceback" not in err[err.index("prefopt: rank 1") :]
    said = read_json(tmp_path / "killed" / "exit.json")
    assert said is not None
    assert said["rank"] == 1

    leaving = bed.start(tmp_path / "left", *TWO, *LONG, path=tmp_path / "path")
    wait_for_step(tmp_path / "left", 2, leaving)
    started = time.monotonic()
    (tmp_path / "leave").touch()
    code, _, err = finish(leaving)
    assert time.monotonic() - started < 60
    assert code == 1
    assert "prefopt: rank 1 ended with exit code 3: out of luck" in err
    assert str(tmp_path / "left" / "logs" / "rank-1.log") in err


@pytest.mark.slow
@pytest.mark.long
def test_a_rank_that_hangs_ends_the_run_when_the_others_have_waited_long_enough(bed: Bed, tmp_path: Path) -> None:
    process = bed.start(tmp_path / "run", *TWO, *LONG, "launch.timeout_minutes=0.15")
    wait_for_step(tmp_path / "run", 2, process)
    started = time.monotonic()
    ranks_of(process)[1].send_signal(signal.SIGSTOP)
    code, _, err = finish(process)
    assert 8 < time.monotonic() - started < 70
    assert code == 1
    assert "prefopt: rank 0 ended with exit code 1: " in err
    assert "rank 1 hung" in err


@pytest.mark.slow
def test_a_signal_while_a_run_is_prepared_or_loaded_leaves_what_can_go_on(bed: Bed, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    waiting = bed.start(
        run_dir, "launch.num_nodes=2", f"launch.rendezvous=127.0.0.1:{unused_port()}", "launch.node_rank=0"
    )
    assert waiting.stdout is not None
    assert "waits for the others" in waiting.stdout.readline()
    waiting.send_signal(signal.SIGUSR1)
    code, _, err = finish(waiting)
    assert code == 128 + signal.SIGUSR1
    assert "stopped by SIGUSR1 at a moment when nothing could be saved" in err
    assert not run_dir.exists()

    for number, more in ((signal.SIGINT, ()), (signal.SIGTERM, TWO)):
        loading = bed.start(run_dir, *more, "train.max_steps=2")
        log = run_dir / "logs" / f"rank-{len(more)}.log"
        while not log.exists():
            assert loading.poll() is None, loading.communicate()
            time.sleep(0.01)
        loading.send_signal(number)
        code, _, err = finish(loading)
        assert code == 128 + number, err
        assert f"stopped by {number.name} at a moment" in err
        assert "Traceback" not in err
        assert (run_dir / RUN).exists()
        assert not (run_dir / LOCK).exists()
        assert not [name for name in os.listdir(run_dir) if name.startswith(".")]
        if not more:
            code, _, err = finish(bed.start(run_dir, *more, "train.max_steps=2"))
            assert code == 0, err
            assert (run_dir / RESULT).exists()
            run_dir = tmp_path / "two"
