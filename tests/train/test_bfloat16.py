"""Updates too small for bfloat16 weights: kept by masters, exact on average when rounded at random, else lost."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ragged import make_engine, one_step, settings

from prefopt.settings import OptimSettings
from prefopt.train import bfloat16, checkpoint
from prefopt.train.bfloat16 import Float32Updates, round_stochastically
from prefopt.train.checkpoint import Progress
from prefopt.train.optim import Updates, clip_gradients, make_updates

UP, DOWN = 2.0**-7, 2.0**-8
"""From 1 to the next bfloat16 upwards and downwards."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("value", "below", "step"),
    [(1 + 1e-4, 1.0, UP), (1 - 1e-4, 1 - DOWN, DOWN), (-1 - 1e-4, -1 - UP, UP), (3.3e-5, None, None)],
)
def test_the_expectation_of_the_rounding_is_the_number(value: float, below: float | None, step: float | None) -> None:
    """Of n draws the mean lies within five standard deviations, sqrt(p (1 - p) / n) steps, of the number."""
    n = 200_000
    numbers = torch.full((n,), value, dtype=torch.float32)
    drawn = round_stochastically(numbers, seeded(1))
    assert drawn.dtype == torch.bfloat16
    seen = sorted(set(drawn.double().tolist()))
    assert len(seen) == 2
    if below is None or step is None:
        below, step = seen[0], seen[1] - seen[0]
    assert seen == [below, below + step]
    exact = numbers[0].double().item()
    p = (exact - below) / step
    assert abs(drawn.double().mean().item() - exact) < 5 * step * math.sqrt(p * (1 - p) / n)


def test_what_bfloat16_can_hold_and_what_is_not_finite_stay() -> None:
    numbers = torch.tensor([0.0, -0.0, 1.0, -2.5, 2.0**100, 2.0**-126, math.inf, -math.inf, math.nan])
    drawn = round_stochastically(numbers, seeded(2)).float()
    assert torch.equal(drawn[:-1], numbers[:-1])
    assert drawn[-1].isnan()


def descend(kind: str, num_steps: int, seed: int = 0, size: int = 1) -> tuple[torch.nn.Parameter, Updates]:
    """Weights of 1.0 and steps of about 1e-4 downwards: Adam's step for a constant gradient is the learning rate."""
    weight = torch.nn.Parameter(torch.ones(size, dtype=torch.bfloat16))
    updates = make_updates([weight], OptimSettings(lr=1e-4, bfloat16_weights=kind), seed)
    for _ in range(num_steps):
        weight.grad = torch.ones_like(weight)
        updates.step()
        updates.zero_grad(set_to_none=True)
    return weight, updates


def test_a_thousand_small_steps_add_up_with_masters() -> None:
    weight, updates = descend("masters", 1000)
    (master,) = updates.state_dict()["masters"]
    assert master.item() == pytest.approx(0.9, abs=1000 * 2.0**-24)  # a float32 below 1 is known to 2^-25
    plain = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([plain], lr=1e-4, weight_decay=0.0, fused=True)
    for _ in range(1000):
        plain.grad = torch.ones(1)
        optimizer.step()
    assert torch.equal(master, plain.detach())
    assert weight.item() == torch.tensor(master.item()).to(torch.bfloat16).item()


def test_a_thousand_small_steps_are_lost_when_rounded_to_nearest() -> None:
    weight, updates = descend("nearest", 1000)
    assert weight.item() == 1.0
    assert isinstance(updates, torch.optim.AdamW)


def test_one_small_step_moves_weights_on_average_when_rounded_at_random() -> None:
    """Each of n weights goes down by 2^-8 with probability p = 1e-4 * 2^8, else it stays."""
    n = 100_000
    weight, _ = descend("stochastic", 1, size=n)
    p = 1e-4 / DOWN
    moved = (weight < 1).sum().item()
    assert set(weight.tolist()) == {1.0, 1 - DOWN}
    assert abs(moved - n * p) < 5 * math.sqrt(n * p * (1 - p))


def test_a_thousand_small_steps_add_up_on_average_when_rounded_at_random() -> None:
    """Each step adds a variance of at most DOWN^2 / 4 per weight; the mean of n weights is n times surer."""
    n, steps = 400, 1000
    weight, _ = descend("stochastic", steps, size=n)
    assert abs(weight.double().mean().item() - 0.9) < 5 * DOWN / 2 * math.sqrt(steps / n)


def test_the_draw_is_of_seed_and_update_alone() -> None:
    """So that ranks of DDP, which have the same gradients, keep the same weights."""
    runs = [descend("stochastic", 20, seed=seed, size=500)[0] for seed in (3, 3, 4)]
    torch.rand(7)  # torch's own stream plays no part
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_weights_updated_in_parts_are_those_updated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[torch.Tensor]:
        weights = [torch.nn.Parameter(torch.full((30,), float(n + 1), dtype=torch.bfloat16)) for n in range(4)]
        weights.append(torch.nn.Parameter(torch.ones(7)))  # a float32 weight among them
        updates = make_updates(weights, OptimSettings(lr=1e-2), 0)
        for step in range(5):
            for weight in weights:
                weight.grad = torch.randn(weight.shape, generator=seeded(step)).to(weight.dtype)
            updates.step()
        assert all(weight.grad is None for weight in weights)
        return [weight.detach() for weight in weights]

    at_once = run()
    monkeypatch.setattr(bfloat16, "AT_ONCE", 40)
    assert all(torch.equal(a, b) for a, b in zip(at_once, run(), strict=True))
    assert not torch.equal(at_once[-1], torch.ones(7))


def test_without_masters_nothing_of_four_bytes_stays_but_the_states() -> None:
    _, updates = descend("stochastic", 1, size=1000)
    assert isinstance(updates, Float32Updates)
    (stand_in,) = updates.param_groups[0]["params"]
    assert stand_in.untyped_storage().nbytes() == 0
    assert updates.state_dict()["masters"] == []
    assert {t.dtype for t in updates.optimizer.state[stand_in].values()} == {torch.float32}


@pytest.mark.parametrize("kind", ["masters", "stochastic", "nearest"])
def test_an_engine_goes_on_from_its_checkpoint_bit_for_bit(kind: str, tmp_path: Path) -> None:
    run = settings("one", dtype="bfloat16")
    run.optim.bfloat16_weights = kind

    def steps(engine, count: int) -> None:
        for _ in range(count):
            engine.set_lr(1e-4)
            one_step(engine, "orpo", "four")

    engine = make_engine(run)
    steps(engine, 2)
    saved = checkpoint.save(engine, tmp_path, Progress(step=2), keep=1)
    steps(engine, 2)
    fresh = make_engine(run)
    checkpoint.load(fresh, saved)
    steps(fresh, 2)
    for (name, a), (_, b) in zip(engine.policy.named_parameters(), fresh.policy.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    said = {
        "masters": "with float32 masters",
        "stochastic": "rounded stochastically",
        "nearest": "rounded to nearest, which loses updates below their precision",
    }
    assert f", bfloat16 weights {said[kind]}," in engine.in_force


@pytest.mark.slow
def test_ranks_of_ddp_round_alike(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    worker = Path(__file__).with_name("stochastic_ranks.py")
    result = subprocess.run(
        [*command, str(worker), str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    start = dict(make_engine(settings("one", dtype="bfloat16")).policy.named_parameters())
    assert all(torch.equal(first[name], second[name]) for name in start)
    assert not all(torch.equal(first[name], start[name]) for name in start)


def test_the_norm_of_bfloat16_gradients_has_float32_digits() -> None:
    weights = [torch.nn.Parameter(torch.zeros(n, dtype=torch.bfloat16)) for n in (5, 7, 1000)]
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=seeded(weight.numel())).to(torch.bfloat16)
    exact = torch.cat([w.grad.double() for w in weights if w.grad is not None]).norm().item()
    assert clip_gradients(weights, None) == pytest.approx(exact, rel=1e-6)
    assert clip_gradients(weights, exact / 2) == pytest.approx(exact, rel=1e-6)
    assert clip_gradients(weights, None) == pytest.approx(exact / 2, rel=1e-2)
