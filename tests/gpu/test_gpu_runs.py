"""Whole runs through the real command on GPUs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import gpu_bed  # noqa: F401 - puts the helpers of the other tests on the path
import pytest
import torch
from safetensors.torch import load_file
from tiny import kill_at_step, make_model, make_pairs, metrics, overrides, prefopt

from prefopt.train.timings import TIMINGS

pytestmark = pytest.mark.gpu

NUM_STEPS = 16  # 32 training pairs, 4 a step, 2 epochs


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("gpu_runs")
    return make_model(folder / "model"), make_pairs(folder / "pairs.jsonl"), folder / "cache"


def words(material: tuple[Path, Path, Path], run_dir: Path, *more: str) -> list[str]:
    model, pairs, _ = material
    return ["train", *overrides(model, pairs, run_dir, "launch.device=cuda", "launch.num_processes=1", *more)]


def finish(command: list[str], cache: Path) -> str:
    result = prefopt(command, cache)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def numbers(run_dir: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in metrics(run_dir)]


@pytest.mark.parametrize(
    "more",
    [
        ["loss=dpo"],
        ["loss=orpo", "model.dtype=bfloat16", "model.lora={r: 4, dropout: 0.2}", "model.checkpoint_every=1"],
        ["loss=dpo", "model.dtype=bfloat16", "optim.bfloat16_weights=stochastic"],
    ],
    ids=["dpo", "bfloat16_lora_with_dropout", "stochastic"],
)
def test_kill_and_resume_is_the_straight_run(
    more: list[str], material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    cache = material[2]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    finish(words(material, straight, *more, "train.save_every=3"), cache)
    command = words(material, killed, *more, "train.save_every=3")
    moment = random.SystemRandom().randint(4, NUM_STEPS - 2)
    kill_at_step(command, cache, killed, moment)
    assert "resuming after step" in finish(command, cache)
    assert numbers(killed) == numbers(straight), moment
    (weights,) = [p.name for p in (straight / "model").glob("*.safetensors")]
    a, b = (load_file(folder / "model" / weights) for folder in (straight, killed))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
@pytest.mark.parametrize("more", [["loss=orpo"], ["loss=kto", "train.batch_size=8"]], ids=["orpo", "kto"])
def test_two_gpus_train_as_one(more: list[str], material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    cache = material[2]
    finish(words(material, tmp_path / "one", *more, "train.max_steps=4"), cache)
    out = finish(words(material, tmp_path / "two", *more, "train.max_steps=4", "launch.num_processes=2"), cache)
    assert "DDP over 2 processes, nccl on cuda" in out
    for got, expected in zip(numbers(tmp_path / "two"), numbers(tmp_path / "one"), strict=True):
        assert got == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_two_gpus_round_stochastically_and_resume(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    more = ["loss=orpo", "model.dtype=bfloat16", "optim.bfloat16_weights=stochastic", "launch.num_processes=2"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    finish(words(material, straight, *more, "train.save_every=3"), material[2])
    command = words(material, killed, *more, "train.save_every=3")
    kill_at_step(command, material[2], killed, 5)
    finish(command, material[2])
    assert numbers(killed) == numbers(straight)


@pytest.mark.parametrize("base", ["nf4", "int8"])
def test_a_run_over_few_bits_saves_adapters_that_are_verified(
    base: str, material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    more = ["loss=dpo", "model.dtype=bfloat16", f"model.lora={{r: 4, base: {base}}}", "optim=paged_adamw_8bit"]
    out = finish(words(material, tmp_path / "run", *more, "train.max_steps=4"), material[2])
    assert f"{base} base, bfloat16 weights" in out
    assert "a fresh process finds the same log-probabilities" in out
    first = next(line for line in metrics(tmp_path / "run") if line["step"] == 1)
    assert first["loss"] == pytest.approx(0.6931, abs=1e-2)
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").is_file()


def test_each_line_tells_the_peak_of_memory(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    finish(words(material, tmp_path / "run", "train.max_steps=3"), material[2])
    peaks = [line["peak_memory_bytes"] for line in metrics(tmp_path / "run") if "lr" in line]
    assert len(peaks) == 3
    assert all(0 < peak < torch.cuda.get_device_properties(0).total_memory for peak in peaks)
