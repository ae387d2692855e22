"""A run that was stopped goes on with another number of processes, or by another engine, as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ragged import make_engine, settings
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import last_step, make_model, make_pairs, metrics, overrides, prefopt, start

from prefopt.train import checkpoint
from prefopt.train.checkpoint import Progress
from prefopt.train.timings import CUT_METRICS, TIMINGS

NUM_STEPS = 16
RELATIVE = 1e-5


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("worlds")
    return make_model(folder / "model"), make_pairs(folder / "pairs.jsonl"), folder / "cache"


def words_for(material: tuple[Path, Path, Path], run_dir: Path, *where: str) -> list[str]:
    model, pairs, _ = material
    return ["train", *overrides(model, pairs, run_dir, "loss=dpo", "optim.lr=1e-4", "train.save_every=never", *where)]


@pytest.fixture(scope="module")
def straight(material: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One plain process, never stopped."""
    run_dir = tmp_path_factory.mktemp("straight") / "run"
    done = prefopt(words_for(material, run_dir), material[2])
    assert done.returncode == 0, done.stderr
    return run_dir


def stop_after(words: list[str], cache: Path, run_dir: Path, step: int) -> str:
    """Start a run and ask it to stop once it has done `step` steps; what it said."""
    process = start(words, cache)
    deadline = time.monotonic() + 200
    try:
        while last_step(run_dir) < step:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=100)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 75, err
    return out


def numbers(run_dir: Path) -> list[dict[str, Any]]:
    left_out = TIMINGS | CUT_METRICS
    return [{k: v for k, v in line.items() if k not in left_out} for line in metrics(run_dir)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "worlds",
    [
        [["launch.num_processes=2", "deepspeed=zero2"], [], ["launch.num_processes=2", "fsdp=full_shard"]],
        pytest.param(
            [["launch.num_processes=2", "fsdp=full_shard"], ["launch.num_processes=4", "deepspeed=zero3_offload"], []],
            marks=pytest.mark.long,
        ),
    ],
    ids=["zero2_plain_fsdp", "fsdp_zero3_plain"],
)
def test_goes_on_elsewhere(
    worlds: list[list[str]], straight: Path, material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    cache, run_dir = material[2], tmp_path / "run"
    for number, where in enumerate(worlds[:-1]):
        stop_after(words_for(material, run_dir, *where), cache, run_dir, 3 + 5 * number)
        assert last_step(run_dir) < NUM_STEPS
    done = prefopt(words_for(material, run_dir, *worlds[-1]), cache)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resuming after step" in done.stdout

    got, expected = numbers(run_dir), numbers(straight)
    assert [line["step"] for line in got] == [line["step"] for line in expected]
    for mine, theirs in zip(got, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=RELATIVE, abs=1e-7), mine["step"]
    weights, others = (load_file(folder / "model" / "model.safetensors") for folder in (run_dir, straight))
    assert weights.keys() == others.keys()
    for name, value in others.items():
        assert (weights[name] - value).norm() <= RELATIVE * value.norm(), name
    starts = json.loads((run_dir / "manifest.json").read_text())["starts"]
    assert len(starts) == len(worlds)
    assert len({(s["world"]["num_processes"], s["world"]["engine"]) for s in starts}) == len(worlds)


def test_other_ranks_draw_other_dropout_and_the_run_says_so(tmp_path: Path) -> None:
    run = settings("one", lora=True)
    assert run.model.lora is not None
    run.model.lora.dropout = 0.1
    engine = make_engine(run)
    path = checkpoint.save(engine, tmp_path, Progress(step=3), keep=1)
    assert checkpoint.load(engine, path) == ""
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["made_by"]["processes"] = 2
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert checkpoint.load(engine, path) == "dropout draws other numbers than 2 processes on cpu would"
    drawn = torch.rand(3)
    checkpoint.load(engine, path)
    assert torch.equal(torch.rand(3), drawn)
    run.model.lora.dropout = 0.0
    assert checkpoint.load(engine, path) == ""
