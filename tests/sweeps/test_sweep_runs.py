"""Sweeps of real runs: killed and resumed, failed, cancelled; what all need is made once."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import make_model, make_pairs, overrides, prefopt, start

from prefopt.lock import holder
from prefopt.sweeps.states import STARTS

TWO_AT_ONCE = ["hydra/launcher=local_gpus", "hydra.launcher.jobs=2"]

pytestmark = pytest.mark.slow


class Place:
    """A working directory with a model and pairs, and the sweep that runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        short = ["train.epochs=1", "train.max_steps=2", "train.save_every=never", "data.eval_size=4"]
        words = overrides(make_model(folder / "model"), make_pairs(folder / "pairs.jsonl", 20), Path(), *short)
        self.words = [word for word in words if not word.startswith(("dir=", "train.epochs=2"))]

    def start(self, *words: str) -> subprocess.Popen[str]:
        return start(list(words), self.cache, self.folder)

    def prefopt(self, *words: str) -> subprocess.CompletedProcess[str]:
        return prefopt(list(words), self.cache, self.folder)

    @property
    def sweep(self) -> Path:
        (found,) = (self.folder / "sweeps").iterdir()
        return found

    def jobs(self) -> list[dict[str, Any]]:
        return json.loads((self.sweep / "sweep.json").read_text())["jobs"]

    def status(self) -> tuple[list[str], list[dict[str, Any]], int]:
        """States, jobs and exit code as `prefopt sweep status` gives them, from another folder."""
        done = prefopt(["sweep", "status", str(self.sweep), "--json"], self.cache)
        said = json.loads(done.stdout)
        assert said["exit_code"] == done.returncode
        return [job["state"] for job in said["jobs"]], said["jobs"], done.returncode

    def starts(self) -> list[int]:
        """How often each job was started."""
        logs = [self.folder / job["log"] for job in self.jobs()]
        return [log.read_text().count(STARTS) if log.exists() else 0 for log in logs]

    def results(self) -> list[dict[str, Any]]:
        return [json.loads((self.folder / job["dir"] / "result.json").read_text()) for job in self.jobs()]

    def wait(self, process: subprocess.Popen[str], until: Callable[[list[str]], bool]) -> None:
        """Until the states in sweep.json are so."""
        deadline = time.monotonic() + 400
        while not (list((self.folder / "sweeps").glob("*/sweep.json")) and until([j["state"] for j in self.jobs()])):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, self.jobs()
            time.sleep(0.05)


def test_a_sweep_of_six_killed_half_way_resumes_and_runs_exactly_the_missing_ones(tmp_path: Path) -> None:
    place = Place(tmp_path)
    words = ["train", "-m", *place.words, "loss=dpo", "loss.beta=0.1,0.2,0.3,0.4,0.5,0.6"]
    shell = place.start(*words, *TWO_AT_ONCE)
    place.wait(shell, lambda states: states.count("done") >= 2 and "running" in states)
    shell.send_signal(signal.SIGKILL)
    shell.communicate()
    deadline = time.monotonic() + 20
    while any(holder(tmp_path / job["dir"]) for job in place.jobs()):  # jobs and their ranks end with the sweep
        assert time.monotonic() < deadline
        time.sleep(0.1)
    states, jobs, code = place.status()
    assert code == 1
    assert set(states) <= {"done", "lost", "queued"}
    assert 2 <= states.count("done") <= 4
    assert "lost" in states
    finished = [n for n, state in enumerate(states) if state == "done"]
    gone = next(n for n in finished if scored(tmp_path / jobs[n]["dir"]) == 0)
    shutil.rmtree(tmp_path / jobs[gone]["dir"])
    states, jobs, _ = place.status()
    assert (states[gone], jobs[gone]["error"]) == ("lost", "its folder is gone; resume starts it anew")
    before = place.starts()

    resumed = place.start("sweep", "resume")
    place.wait(resumed, lambda states: "running" in states)
    for second in (["sweep", "resume"], [*words, "hydra/launcher=local"]):
        refused = place.prefopt(*second)
        assert refused.returncode == 2
        assert f"is in use by process {resumed.pid} since" in refused.stderr
    out, err = resumed.communicate(timeout=400)
    assert resumed.returncode == 0, out + err
    assert "6 done" in out
    missing = [n not in finished or n == gone for n in range(6)]
    assert [now - then for now, then in zip(place.starts(), before)] == [int(is_missing) for is_missing in missing]

    again = place.prefopt(*words)  # another way of starting is the same sweep
    assert again.returncode == 0
    assert "6 done" in again.stdout
    assert [now - then for now, then in zip(place.starts(), before)] == [int(is_missing) for is_missing in missing]
    assert len([entry for entry in (place.cache / "encoded").iterdir() if entry.is_dir()]) == 1
    assert sorted(result["reference_rows_scored"] for result in place.results()) == [0] * 5 + [20]


def scored(folder: Path) -> int:
    return json.loads((folder / "result.json").read_text())["reference_rows_scored"]


def test_failed_and_cancelled_jobs_are_told_apart_and_retried_apart(tmp_path: Path) -> None:
    place = Place(tmp_path)
    words = [word for word in place.words if not word.startswith(("data.max_length", "train.max_steps"))]
    words += ["train.epochs=1000", "data.max_length=160,4", "train.max_steps=2,20000"]
    shell = place.start("train", "-m", *words, *TWO_AT_ONCE)
    place.wait(shell, lambda states: sorted(states) == ["done", "failed", "failed", "running"])
    place.wait(shell, lambda _: (tmp_path / place.jobs()[1]["dir"] / "metrics.jsonl").exists())
    assert place.status()[0] == ["done", "running", "failed", "failed"]
    cancelled = place.prefopt("sweep", "cancel")
    assert cancelled.returncode == 0, cancelled.stderr
    out, err = shell.communicate(timeout=200)
    assert shell.returncode == 128 + signal.SIGTERM, err
    assert "1 done, 2 failed, 1 preempted" in out
    states, jobs, code = place.status()
    assert (states, code) == (["done", "preempted", "failed", "failed"], 1)
    assert [job["exit_code"] for job in jobs] == [0, 75, 2, 2]
    assert "rows can be used" in jobs[2]["error"]
    assert jobs[1]["error"].startswith("stopped by prefopt sweep cancel; stopped by a signal after step")
    assert list((tmp_path / jobs[1]["dir"] / "checkpoints").glob("step-*"))

    before = place.starts()
    retried = place.prefopt("sweep", "retry", "--failed", "hydra/launcher=local")
    assert retried.returncode == 1
    assert [now - then for now, then in zip(place.starts(), before)] == [0, 0, 1, 1]
    for said in ("rows can be used", "job-3.log", "1 done, 2 failed, 1 preempted"):
        assert said in retried.stdout
    for number in (3, 4):  # what --quiet leaves
        assert re.search(
            rf"prefopt: job {number} \(.*\) failed: .*rows can be used.*; sweeps/.*job-{number}.log", retried.stderr
        )
    one = place.prefopt("sweep", "retry", "--job", "3")
    assert one.returncode == 1
    assert [now - then for now, then in zip(place.starts(), before)] == [0, 0, 2, 1]
    assert f"next: prefopt sweep retry --failed sweeps/{place.sweep.name}; " in one.stdout
    other = place.prefopt("sweep", "retry", "--failed", "optim.lr=1e-3")
    assert other.returncode == 2
    assert "`prefopt train -m` with it; runs of it that are done are not made again" in other.stderr
    nothing = place.prefopt("sweep", "cancel")
    assert nothing.returncode == 0
    assert "nothing is queued or runs" in nothing.stdout


@pytest.mark.long
def test_optuna_through_the_real_command(tmp_path: Path) -> None:
    place = Place(tmp_path)
    words = ["train", "-m", *place.words, "loss.lam=tag(log,interval(0.01,1))", "hydra/sweeper=optuna"]
    wrong = place.prefopt(*words, *TWO_AT_ONCE, "hydra.sweeper.metric=eval/heldout/lose", "hydra.sweeper.n_trials=1")
    assert wrong.returncode == 2
    assert "did you mean 'eval/heldout/loss'" in wrong.stderr
    assert place.jobs()[0]["state"] != "failed"
    shutil.rmtree(place.sweep)
    words += ["hydra.sweeper.metric=eval/heldout/loss"]
    first = place.prefopt(*words, "hydra.sweeper.n_trials=2", *TWO_AT_ONCE)
    assert first.returncode == 0, first.stderr
    assert "2 done; least eval/heldout/loss" in first.stdout
    before = place.starts()
    more = place.prefopt(*words, "hydra.sweeper.n_trials=3")
    assert more.returncode == 0, more.stderr
    assert place.starts() == [*before, 1]
    values = [job["metrics"]["eval/heldout/loss"] for job in place.jobs()]
    assert f"{min(values):.6g}" in more.stdout
