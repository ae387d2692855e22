"""A run that is killed and started again is the run that was never killed, bit for bit."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import kill_at_step, make_model, make_pairs, metrics, overrides, prefopt

from prefopt.train.timings import TIMINGS

LONG = [pytest.mark.slow, pytest.mark.long]
NUM_STEPS = 16  # 32 training pairs, 4 a step, 2 epochs


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("resume")
    return make_model(folder / "model"), make_pairs(folder / "pairs.jsonl"), folder / "cache"


def comparable(run_dir: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in metrics(run_dir)]


def optimizer_state(run_dir: Path) -> dict[str, torch.Tensor]:
    """Weights, masters and the optimiser's states of the last checkpoint, of every rank."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted((run_dir / "checkpoints" / f"step-{NUM_STEPS:08d}").glob("state-*.safetensors")):
        found |= {f"{file.name} {key}": value for key, value in load_file(file).items()}
    assert any("exp_avg_sq" in key for key in found)
    return found


def assert_bit_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


@pytest.mark.parametrize(
    "more",
    [
        ["loss=dpo"],
        pytest.param(["loss=orpo", "model.lora={r: 4, dropout: 0.2}"], marks=LONG),  # KTO has adapters too
        pytest.param(["loss=tdpo"], marks=LONG),  # the live reference is the start, not the checkpoint
        pytest.param(["loss=kto", "train.batch_size=8", "model.lora={r: 4, dropout: 0.2}"], marks=pytest.mark.slow),
        pytest.param(["loss=reward_bt"], marks=LONG),
        pytest.param(["loss=dpo", "model.dtype=bfloat16"], marks=LONG),  # masters are state too
        pytest.param(["loss=dpo", "model.dtype=bfloat16", "optim.bfloat16_weights=stochastic"], marks=LONG),
    ],
    ids=["dpo", "orpo_lora_with_dropout", "tdpo", "kto_lora_with_dropout", "reward_bt", "masters", "stochastic"],
)
def test_kill_and_resume_is_the_straight_run(
    more: list[str], material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    model, pairs, cache = material
    common = [*more, "train.save_every=3", "train.eval_every=5"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    result = prefopt(["train", *overrides(model, pairs, straight, *common)], cache)
    assert result.returncode == 0, result.stderr

    words = ["train", *overrides(model, pairs, killed, *common)]
    moments = sorted(random.SystemRandom().sample(range(1, NUM_STEPS - 1), 2))
    for moment in moments:
        kill_at_step(words, cache, killed, moment)
    result = prefopt(words, cache)
    assert result.returncode == 0, (moments, result.stderr)
    assert "resuming after step" in result.stdout or moments[-1] <= 3, moments

    assert comparable(killed) == comparable(straight), moments
    assert [line["step"] for line in comparable(straight) if "lr" in line] == list(range(1, NUM_STEPS + 1))
    (weights,) = [p.name for p in (straight / "model").glob("*.safetensors")]
    assert_bit_equal(load_file(straight / "model" / weights), load_file(killed / "model" / weights))
    assert_bit_equal(optimizer_state(straight), optimizer_state(killed))


def test_a_run_that_does_not_take_up_its_checkpoint_would_be_noticed(
    material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """The negative control: another seed gives another trajectory, so equality above means something."""
    model, pairs, cache = material
    runs = {}
    for seed in (1, 2):
        run_dir = tmp_path / str(seed)
        words = ["train", *overrides(model, pairs, run_dir, "loss=simpo", f"train.seed={seed}", "train.max_steps=3")]
        assert prefopt(words, cache).returncode == 0
        runs[seed] = comparable(run_dir)
    assert runs[1] != runs[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine",
    [
        [],
        pytest.param(["deepspeed=zero2"], marks=pytest.mark.long),
        ["deepspeed=zero3"],
        pytest.param(["fsdp=full_shard"], marks=pytest.mark.long),
    ],
    ids=["ddp", "zero2", "zero3", "fsdp"],
)
def test_two_ranks_resume_exactly(engine: list[str], material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, pairs, cache = material
    common = ["loss=dpo", "train.save_every=3", "launch.num_processes=2", *engine]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    result = prefopt(["train", *overrides(model, pairs, straight, *common)], cache)
    assert result.returncode == 0, result.stderr[-3000:]
    words = ["train", *overrides(model, pairs, killed, *common)]
    moment = random.SystemRandom().randint(4, NUM_STEPS - 2)
    kill_at_step(words, cache, killed, moment)
    result = prefopt(words, cache)
    assert result.returncode == 0, (moment, result.stderr[-3000:])
    assert "resuming after step" in result.stdout
    assert comparable(killed) == comparable(straight), moment
    assert_bit_equal(optimizer_state(straight), optimizer_state(killed))
    assert_bit_equal(
        load_file(straight / "model" / "model.safetensors"), load_file(killed / "model" / "model.safetensors")
    )
