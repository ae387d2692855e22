"""Adapters over weights of 4 or 8 bits: bitsandbytes runs these on the CPU too, where prefopt would not begin a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ragged import make_engine, one_step, settings

pytest.importorskip("bitsandbytes")

from prefopt.model.layout import settle_layout
from prefopt.settings import LoraSettings, RunSettings
from prefopt.train import checkpoint
from prefopt.train.checkpoint import Progress


def run_with(base: str) -> RunSettings:
    run = settings("one")
    run.model.lora = LoraSettings(r=4, base=base)
    run.model.checkpoint_every = 1
    return run


@pytest.mark.parametrize("scalar_head", [False, True], ids=["lm_head", "scalar_head"])
@pytest.mark.parametrize("base", ["nf4", "int8"])
def test_the_step_does_not_depend_on_its_cut(base: str, scalar_head: bool) -> None:
    engine = make_engine(run_with(base), scalar_head)
    assert settle_layout(engine.policy, engine, "auto") == "shared"
    loss = "reward_bt" if scalar_head else "orpo"
    once, often = one_step(engine, loss, "one"), one_step(engine, loss, "alone")
    for name, gradient in once["gradient"].items():
        assert "lora_" in name or "score" in name
        assert (often["gradient"][name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-7, name
    assert f"{base} base, float32 weights" in engine.in_force


@pytest.mark.parametrize(("base", "dtype"), [("nf4", torch.uint8), ("int8", torch.int8)])
def test_only_the_frozen_matrices_are_held_in_few_bits(base: str, dtype: torch.dtype) -> None:
    engine = make_engine(run_with(base))
    low = {n for n, p in engine.policy.named_parameters() if p.dtype == dtype}
    assert len(low) == 7 * engine.policy.pretrained.config.num_hidden_layers
    assert all("base_layer" in name for name in low)
    assert all(p.dtype == torch.float32 for p in engine.policy.parameters() if p.requires_grad)


def test_the_numbers_are_not_those_of_the_plain_weights_but_near_them() -> None:
    """And 8 bits are nearer than 4."""
    losses = {}
    for base in ("plain", "nf4", "int8"):
        losses[base] = one_step(make_engine(run_with(base)), "sft", "one")["metrics"]["loss"]
    assert 0 < abs(losses["int8"] - losses["plain"]) < abs(losses["nf4"] - losses["plain"]) < 0.5


def test_adapters_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    engine = make_engine(run_with("nf4"))

    def step(of) -> None:
        of.set_lr(1e-2)
        one_step(of, "sft", "four")

    step(engine)
    saved = checkpoint.save(engine, tmp_path, Progress(step=1), keep=1)
    step(engine)
    fresh = make_engine(run_with("nf4"))
    checkpoint.load(fresh, saved)
    step(fresh)
    for (name, a), (_, b) in zip(engine.policy.named_parameters(), fresh.policy.named_parameters(), strict=True):
        assert torch.equal(a, b), name
