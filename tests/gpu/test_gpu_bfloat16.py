"""Small updates of bfloat16 weights on a GPU: masters, and a rounding whose draws are the GPU's own."""

from __future__ import annotations

import math

import pytest
import torch
from gpu_bed import GPU

from prefopt.settings import OptimSettings
from prefopt.train.bfloat16 import round_stochastically
from prefopt.train.optim import make_updates

pytestmark = pytest.mark.gpu

DOWN = 2.0**-8
"""From 1 to the next bfloat16 downwards."""


def descend(kind: str, num_steps: int, size: int, seed: int = 0) -> torch.Tensor:
    weight = torch.nn.Parameter(torch.ones(size, dtype=torch.bfloat16, device=GPU))
    updates = make_updates([weight], OptimSettings(lr=1e-4, bfloat16_weights=kind), seed)
    for _ in range(num_steps):
        weight.grad = torch.ones_like(weight)
        updates.step()
        updates.zero_grad(set_to_none=True)
    return weight.detach()


def test_the_expectation_of_the_rounding_is_the_number() -> None:
    n, value = 1_000_000, 1 - 1e-4
    numbers = torch.full((n,), value, dtype=torch.float32, device=GPU)
    drawn = round_stochastically(numbers, torch.Generator(GPU).manual_seed(1))
    assert set(drawn.tolist()) == {1 - DOWN, 1.0}
    exact = numbers[0].double().item()
    p = (1 - exact) / DOWN
    assert abs(drawn.double().mean().item() - exact) < 5 * DOWN * math.sqrt(p * (1 - p) / n)


def test_masters_add_up_nearest_stays_and_a_draw_is_right_on_average() -> None:
    assert descend("masters", 1000, 1).item() == pytest.approx(0.9, abs=DOWN / 2)
    assert descend("nearest", 1000, 1).item() == 1.0
    size, steps = 10_000, 200
    mean = descend("stochastic", steps, size).double().mean().item()
    assert abs(mean - (1 - steps * 1e-4)) < 5 * DOWN / 2 * math.sqrt(steps / size)


def test_the_same_seed_draws_the_same() -> None:
    runs = [descend("stochastic", 20, 1000, seed) for seed in (3, 3, 4)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
