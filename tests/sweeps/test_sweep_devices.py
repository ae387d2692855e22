"""Which devices a job of `hydra/launcher=local_gpus` gets: as many as it asks for, and none that another one has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import environment, make_model, make_pairs, overrides

from prefopt.config import compose
from prefopt.errors import UserError
from prefopt.sweeps.local import LocalGpusLauncher
from prefopt.sweeps.settings import LocalGpusSettings


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A driver's tool that shows four GPUs, and writes down which of them its caller may see."""
    seen = tmp_path / "seen"
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    lines = "".join(f"echo 'GPU {n}: Test (UUID: GPU-{n})'\n" for n in range(4))
    tool.write_text(f'#!/bin/sh\necho "$PPID $CUDA_VISIBLE_DEVICES" >> {seen}\n{lines}')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return seen


@pytest.mark.parametrize(
    ("visible", "jobs", "each", "slots"),
    [
        (None, None, None, ["0", "1", "2", "3"]),
        (None, 2, None, ["0", "1"]),
        (None, None, 2, ["0,1", "2,3"]),
        ("3,1,2", None, 2, ["3,1"]),
        ("3,1", 2, 1, ["3", "1"]),
    ],
)
def test_no_device_is_in_two_slots(
    four_gpus: Path,
    visible: str | None,
    jobs: int | None,
    each: int | None,
    slots: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    launcher = LocalGpusLauncher(LocalGpusSettings(jobs=jobs, gpus_per_job=each))
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in launcher._gpu_slots()] == slots


@pytest.mark.parametrize(
    ("settings", "words", "said"),
    [
        ({"jobs": 3, "gpus_per_job": 2}, [], "this machine shows 4\n  hydra.launcher.jobs=2"),
        ({"gpus_per_job": 5}, [], "this machine shows 4\n  hydra.launcher.gpus_per_job=4"),
        ({"gpus_per_job": 2}, ["launch.num_processes=3"], "this machine shows 2 GPU"),
    ],
)
def test_what_does_not_fit_is_refused(four_gpus: Path, settings: dict[str, int], words: list[str], said: str) -> None:
    run = compose(["recipe=quickstart", "launch.device=cuda", *words])
    with pytest.raises(UserError) as caught:
        LocalGpusLauncher(LocalGpusSettings(**settings)).check(run)
    assert said in str(caught.value)


def test_threads_are_divided_among_the_jobs_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)))
    launcher = LocalGpusLauncher(LocalGpusSettings(jobs=3))
    launcher.check(compose(["recipe=quickstart", "launch.num_processes=2"]))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert launcher._cpu_slots() == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert launcher._cpu_slots() == [{"OMP_NUM_THREADS": "1"}] * 3


@pytest.mark.slow
def test_each_job_sees_devices_of_its_own_and_a_failed_one_stops_no_other(four_gpus: Path, tmp_path: Path) -> None:
    words = overrides(make_model(tmp_path / "model"), make_pairs(tmp_path / "pairs.jsonl"), Path())[:-1]
    words.remove("launch.device=cpu")
    # No row is short enough: each job asks the tool for its devices, and ends before it would need one.
    words += ["data.max_length=4", "train.seed=1,2,3", "hydra/launcher=local_gpus"]
    done = subprocess.run(
        [sys.executable, "-m", "prefopt.cli", "train", "-m", *words],
        cwd=tmp_path,
        env={**environment(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": "3,1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    (record,) = (tmp_path / "sweeps").glob("*/sweep.json")
    jobs = json.loads(record.read_text())["jobs"]
    assert [job["state"] for job in jobs] == ["failed"] * 3
    assert all("rows can be used" in job["error"] for job in jobs)
    told = {str(job["handle"]["pid"]): job["handle"]["environment"]["CUDA_VISIBLE_DEVICES"] for job in jobs}
    assert sorted(list(told.values())[:2]) == ["1", "3"]
    saw = dict(line.split() for line in four_gpus.read_text().splitlines())
    assert {pid: saw[pid] for pid in told} == told
    assert "3 failed" in done.stdout
