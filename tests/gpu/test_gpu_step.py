"""A step on the GPU is the step on the CPU, as far as the precision goes."""

from __future__ import annotations

import pytest
import torch
from gpu_bed import GPU, gpu_run, gradient_of, make_engine, one_step, settings

from prefopt.train.track import Clock

pytestmark = pytest.mark.gpu


def on_cpu(loss: str) -> dict:
    return one_step(make_engine(settings("one")), loss, "one")


@pytest.mark.parametrize("loss", ["orpo", "dpo", "kto"])
def test_a_float32_step_is_that_of_the_cpu(loss: str) -> None:
    expected = on_cpu(loss)
    for how in ("one", "four"):
        got = one_step(make_engine(gpu_run()), loss, how)
        assert got["units"] == expected["units"]
        assert got["metrics"]["loss"] == pytest.approx(expected["metrics"]["loss"], rel=1e-4)
        exact, found = gradient_of(expected), gradient_of(got)
        assert (found - exact).norm() <= 1e-3 * exact.norm()


@pytest.mark.parametrize("kind", ["weights", "autocast"])
def test_a_bfloat16_step_is_finite_and_near_that_of_float32(kind: str) -> None:
    expected = on_cpu("orpo")
    run = gpu_run("bfloat16" if kind == "weights" else "float32")
    run.train.autocast = "bf16" if kind == "autocast" else "none"
    got = one_step(make_engine(run), "orpo", "four")
    assert got["metrics"]["loss"] == pytest.approx(expected["metrics"]["loss"], rel=0.05)
    exact, found = gradient_of(expected), gradient_of(got)
    assert found.isfinite().all()
    assert torch.nn.functional.cosine_similarity(exact, found, dim=0) > 0.98


def test_updates_are_made_on_the_gpu() -> None:
    engine = make_engine(gpu_run())
    before = {n: p.detach().clone() for n, p in engine.policy.named_parameters()}
    engine.set_lr(1e-3)
    one_step(engine, "orpo", "one")
    assert {p.device.type for p in engine.policy.parameters()} == {GPU}
    assert all(not torch.equal(p, before[n]) for n, p in engine.policy.named_parameters())
    assert f"on {GPU}, AdamW with no weight decay, float32 weights" in engine.in_force


def test_the_peak_of_memory_is_that_of_the_step() -> None:
    engine = make_engine(gpu_run())
    clock = Clock(engine)
    resting = torch.cuda.memory_allocated()
    block = torch.ones(2**28, dtype=torch.uint8, device=GPU)
    del block
    assert clock.read(1, 1, 0)["peak_memory_bytes"] >= resting + 2**28
    clock.restart()
    block = torch.ones(2**20, dtype=torch.uint8, device=GPU)
    assert resting + 2**20 <= clock.read(1, 1, 0)["peak_memory_bytes"] < resting + 2**22
    del block
