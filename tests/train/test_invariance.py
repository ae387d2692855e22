"""The gradient does not depend on how the work was cut: micro-batches, packing, sharing, head, ranks, ZeRO stage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ragged import CUTS, FEW_LOGITS, LOSSES, cuts_of, make_engine, one_step, runs_on, settings

from prefopt.losses import make_loss
from prefopt.model import logps
from prefopt.needs import LIVE

LIVE_LOSSES = {name for name, values in LOSSES.items() if make_loss(values).needs & LIVE}
WORKER = Path(__file__).with_name("ragged.py")
RELATIVE = 1e-5


def every_loss(layout: str = "shared", lora: bool = False, cuts: tuple[str, ...] = ("one",)) -> dict[tuple, Any]:
    """One process: (loss, cut) -> what one step gives, each method on an engine that has the head it needs."""
    found = {}
    for scalar_head in (False, True):
        engine = make_engine(settings("one", layout, lora), scalar_head)
        found |= {(n, how): one_step(engine, n, how) for n in LOSSES if runs_on(engine, n) for how in cuts}
    return found


@pytest.fixture(scope="module")
def straight() -> dict[str, dict[str, Any]]:
    """One process, one micro-batch, shared prompts."""
    return {loss: result for (loss, _), result in every_loss().items()}


@pytest.fixture(scope="module")
def straight_lora() -> dict[str, dict[str, Any]]:
    return {loss: result for (loss, _), result in every_loss(lora=True).items()}


def assert_same(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert got["units"] == expected["units"]
    assert got["metrics"].keys() == expected["metrics"].keys()
    for name, value in expected["metrics"].items():
        assert got["metrics"][name] == pytest.approx(value, rel=RELATIVE, abs=1e-7), name
    assert got["gradient"].keys() == expected["gradient"].keys()
    both = [torch.cat([g[n].flatten() for n in sorted(g)]) for g in (got["gradient"], expected["gradient"])]
    assert (both[0] - both[1]).norm() <= RELATIVE * both[1].norm()
    for name, value in expected["gradient"].items():
        assert (got["gradient"][name] - value).norm() <= 1e-4 * value.norm() + 1e-6 * both[1].norm(), name


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
def test_one_process_any_cut_any_layout(layout: str, straight: dict[str, dict[str, Any]]) -> None:
    found = every_loss(layout, cuts=CUTS)
    assert found.keys() == {(loss, how) for loss in LOSSES for how in CUTS}
    for (loss, how), got in found.items():
        assert got["num_micro_batches"] == {"one": 1, "four": 4, "alone": 13}[how]
        assert_same(got, straight[loss])


def test_the_head_in_chunks_is_the_whole_head(
    straight: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logps, "MAX_LOGITS", FEW_LOGITS)
    for (loss, _), got in every_loss(cuts=("four",)).items():
        assert_same(got, straight[loss])


def test_the_gradient_is_not_zero_and_differs_between_methods(straight: dict[str, dict[str, Any]]) -> None:
    norms = {loss: s["metrics"]["grad_norm"] for loss, s in straight.items()}
    assert min(norm for loss, norm in norms.items() if loss != "wpo") > 0.1
    assert norms["wpo"] > 1e-6  # random tokens are so unlikely to the policy that the pairs weigh next to nothing
    assert norms.pop("rank_pairwise") == norms["rank_pointwise"]  # both are the NLL of a verdict; their rows differ
    assert len({round(n, 9) for n in norms.values()}) == len(norms)


@pytest.mark.parametrize("scalar_head", [False, True], ids=["lm_head", "scalar_head"])
def test_bfloat16_weights_give_every_method_a_finite_step(scalar_head: bool, straight: dict[str, Any]) -> None:
    engine = make_engine(settings("one", dtype="bfloat16"), scalar_head)
    for loss in [name for name in LOSSES if runs_on(engine, name)]:
        found = one_step(engine, loss, "four")
        assert all(torch.isfinite(torch.tensor(value)) for value in found["metrics"].values()), loss
        assert all(gradient.isfinite().all() for gradient in found["gradient"].values()), loss
        if loss != "wpo":  # its weights are exponentials of sums of log-probabilities
            assert found["metrics"]["loss"] == pytest.approx(straight[loss]["metrics"]["loss"], rel=0.1), loss


def test_the_baseline_of_kto_is_above_zero_here(straight: dict[str, dict[str, Any]]) -> None:
    assert 0.5 < straight["kto"]["metrics"]["kl"] < 20


def two_ranks(tmp_path: Path, engine: str, head: str) -> dict[str, Any]:
    out = tmp_path / f"{head}.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    result = subprocess.run(
        [*command, str(WORKER), str(out), engine, head],
        env=env, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    found = torch.load(out, weights_only=False)
    assert "over 2 processes, gloo on cpu" in found["in_force"]
    name = {"ddp": "DDP", "fsd": "FSDP2"}.get(engine[:3]) or f"DeepSpeed ZeRO-{engine[4]}"
    assert found["in_force"].startswith(name)
    return found["results"]


LONG = (
    "zero3_lora",
    "ddp_lora_recomputed",
    "zero3_recomputed",
    "zero2off",
    "zero3off_lora",
    "fsdp_lora",
    "fsdp_recomputed",
)
ENGINES = ("zero1", "zero2", "zero3", "fsdp", "ddp_lora", *LONG)
SLOW = [pytest.param(kind, marks=[pytest.mark.slow, *([pytest.mark.long] if kind in LONG else [])]) for kind in ENGINES]


@pytest.mark.parametrize("engine", ["ddp", *SLOW])
def test_two_ranks_give_the_step_of_one(
    engine: str,
    tmp_path: Path,
    straight: dict[str, dict[str, Any]],
    straight_lora: dict[str, dict[str, Any]],
) -> None:
    found = two_ranks(tmp_path, engine, "lm") | two_ranks(tmp_path, engine, "scalar")
    expected = straight_lora if "_lora" in engine else straight
    for (loss, how), got in found.items():
        assert got["num_micro_batches"] == {"one": 1, "four": 4, "alone": 7}[how]
        assert_same(got, expected[loss])
    # A second whole model cannot be sharded beside the first.
    refused = LIVE_LOSSES if engine in ("zero3", "zero3_recomputed") else set()
    assert found.keys() == {(loss, how) for loss in LOSSES.keys() - refused for how in cuts_of(engine)}
