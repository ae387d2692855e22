"""From a run to its folder and its ranks: who may write where, what is started, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from prefopt.config import compose
from prefopt.disk import write_whole
from prefopt.errors import RunError, UserError
from prefopt.manifest import differences, git_state, new_manifest
from prefopt.rank_group import RankGroup
from prefopt.ranks import World, command, count_gpus, environment, free_port, plan_world
from prefopt.run_folder import MANIFEST, RESULT, RUN, State, find_state, read_json
from prefopt.settings import RunSettings

ONE = World("cpu", 1)


@pytest.fixture
def run() -> RunSettings:
    return compose(["recipe=quickstart"])


def existing(folder: Path, run: RunSettings, world: World = ONE, fingerprint: str = "f0") -> Path:
    """A run folder as a start leaves it that has done a step."""
    folder.mkdir()
    manifest = new_manifest(asdict(run), "id", fingerprint, asdict(world), ["prefopt", "train"])
    write_whole(folder / MANIFEST, json.dumps(manifest))
    write_whole(folder / RUN, yaml.safe_dump(asdict(run)))
    write_whole(folder / "metrics.jsonl", '{"step": 1, "lr": 0.1}\n')
    return folder


def test_folder_that_is_not_there_is_a_new_run(tmp_path: Path, run: RunSettings) -> None:
    assert find_state(tmp_path / "r", run, "f0") is State.NEW


def test_same_settings_and_data_go_on(tmp_path: Path, run: RunSettings) -> None:
    folder = existing(tmp_path / "r", run)
    assert find_state(folder, run, "f0") is State.RESUMED
    (folder / RESULT).write_text("{}")
    assert find_state(folder, run, "f0") is State.DONE


def test_settings_that_decide_no_number_may_change(tmp_path: Path, run: RunSettings) -> None:
    other = replace(run, name="other", train=replace(run.train, log_every=7))
    assert find_state(existing(tmp_path / "r", run), other, "f0") is State.RESUMED


def test_another_world_and_another_engine_go_on(tmp_path: Path, run: RunSettings) -> None:
    other = compose(["recipe=quickstart", "launch.num_processes=2", "deepspeed=zero3"])
    assert find_state(existing(tmp_path / "r", run), other, "f0") is State.RESUMED


def test_other_run_is_refused_with_every_difference_and_left_alone(tmp_path: Path, run: RunSettings) -> None:
    folder = existing(tmp_path / "r", run)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    other = compose(["recipe=quickstart", "loss.lam=2", "optim.lr=5e-4", "data.train.0.limit=9"])
    with pytest.raises(UserError) as caught:
        find_state(folder, other, "f1")
    assert caught.value.exit_code == 2
    for said in (
        "loss.lam: 1.0 -> 2.0",
        "optim.lr: 0.001 -> 0.0005",
        "data.train.0.limit: null -> 9",
        "data: f0 -> f1",
    ):
        assert said in str(caught.value)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_folder_of_something_else_is_refused(tmp_path: Path, run: RunSettings) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"is not a run: it holds thesis\.tex"):
        find_state(tmp_path, run, None)


def test_start_that_was_cut_short_is_a_new_run(tmp_path: Path, run: RunSettings) -> None:
    (tmp_path / "data.json").write_text("{")
    (tmp_path / ".manifest.json.tmp-1").write_text("{")
    assert find_state(tmp_path, run, None) is State.NEW


def test_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        write_whole(tmp_path / "folder", "text")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_damaged_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.json cannot be read"):
        read_json(tmp_path / "x.json")


def test_differences_name_dotted_keys_and_places_in_lists() -> None:
    old = {"a": {"b": 1, "c": [1, {"d": 2}]}, "e": None}
    new = {"a": {"b": 1, "c": [1, {"d": 3}]}, "e": None, "f": True}
    assert [str(found) for found in differences(old, new)] == ["a.c.1.d: 2 -> 3", "f: nothing -> True"]
    assert differences(old, old) == []


def test_git_state_is_none_outside_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert git_state() is None


def test_one_process_is_started_without_accelerate(run: RunSettings) -> None:
    assert command(run, ONE, 1234) == [sys.executable, "-m", "prefopt.train", run.dir]


def test_two_cpu_processes_are_started_as_multi_gpu_on_cpu(run: RunSettings) -> None:
    words = " ".join(command(run, World("cpu", 2), 1234))
    assert "--multi_gpu --num_machines 1 --num_processes 2" in words
    assert "--main_process_port 1234" in words
    assert words.endswith(f"-m prefopt.train {run.dir}")
    added = environment(run, World("cpu", 2))
    assert added["ACCELERATE_USE_CPU"] == "1"
    assert added["PREFOPT_WORLD_SIZE"] == "2"


def test_deepspeed_goes_through_accelerate_even_alone() -> None:
    run = compose(["recipe=quickstart", "deepspeed=zero2"])
    assert "--use_deepspeed" in command(run, ONE, 1)
    added = environment(run, ONE)
    assert added["DS_ACCELERATOR"] == "cpu"
    assert "ACCELERATE_USE_CPU" not in added


def test_threads_are_the_setting_else_the_environment_else_a_share_of_the_cores(
    run: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environment(run, ONE)["OMP_NUM_THREADS"] == "3"
    chosen = replace(run, launch=replace(run.launch, threads_per_process=5))
    assert environment(chosen, ONE)["OMP_NUM_THREADS"] == "5"
    monkeypatch.delenv("OMP_NUM_THREADS")
    alone, shared = environment(run, ONE)["OMP_NUM_THREADS"], environment(run, World("cpu", 10**6))["OMP_NUM_THREADS"]
    assert int(alone) >= int(shared) == 1


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose driver lists four GPUs."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nfor i in 0 1 2 3; do echo \"GPU $i: name (UUID: GPU-$i)\"; done\necho '  MIG 1g'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 4), ("", 0), ("-1", 0), ("0", 1), ("1,3", 2), ("0,9,1", 1), ("GPU-a,GPU-b", 2), ("2,-1,3", 1)],
)
@pytest.mark.usefixtures("four_gpus")
def test_gpus_are_counted_as_cuda_sees_them(visible: str | None, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == count


@pytest.mark.usefixtures("four_gpus")
def test_a_run_takes_every_gpu_unless_told_otherwise(run: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    anywhere = replace(run, launch=replace(run.launch, device="auto", num_processes=None))
    assert plan_world(anywhere) == World("cuda", 4)
    assert plan_world(run) == ONE
    with pytest.raises(UserError, match="shows 4 GPU"):
        plan_world(replace(run, launch=replace(run.launch, device="cuda", num_processes=8)))
    with pytest.raises(UserError, match="less than the 4 processes"):
        plan_world(replace(anywhere, train=replace(run.train, batch_size=3)))


def test_cuda_is_refused_where_there_is_none(run: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="shows no GPU"):
        plan_world(replace(run, launch=replace(run.launch, device="cuda")))


def test_free_port_can_be_bound() -> None:
    assert 1024 <= free_port() < 65536


@pytest.mark.parametrize(
    ("code", "expected"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_exit_code_of_the_ranks_is_given_back(code: str, expected: int) -> None:
    started: list[int] = []
    assert RankGroup().run([sys.executable, "-c", code], {}, started.append) == expected
    assert len(started) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_ranks_once(number: signal.Signals, tmp_path: Path) -> None:
    ready, seen = tmp_path / "ready", tmp_path / "seen"
    code = (
        "import signal, time, pathlib\n"
        "got = []\n"
        f"signal.signal({int(number)}, lambda n, f: got.append(n))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "while not got: time.sleep(0.01)\n"
        "time.sleep(0.2)\n"
        f"pathlib.Path({str(seen)!r}).write_text(str(len(got)))\n"
        "raise SystemExit(75)\n"
    )

    def send() -> None:
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    assert RankGroup().run([sys.executable, "-c", code], {}, lambda pid: None) == 75
    sender.join()
    assert seen.read_text() == "1"


def test_nohup_keeps_a_run_alive() -> None:
    code = "import os, signal\nos.kill(os.getppid(), signal.SIGHUP)"
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        group = RankGroup()
        assert group.run([sys.executable, "-c", code], {}, lambda pid: None) == 0
        assert group.signal is None
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_program_that_is_not_there_is_one_message() -> None:
    with pytest.raises(RunError, match="cannot be started"):
        RankGroup().run(["/nowhere/python"], {}, lambda pid: None)
