"""Each optimiser takes the step that its paper says, spares vectors the weight decay, and goes on from its state."""

from __future__ import annotations

import io
import math

import pytest
import torch

from prefopt.settings import OptimSettings
from prefopt.train.optim import make_optimizer

TORCHS_OWN = ("adamw", "adafactor", "rmsprop")
OF_BITSANDBYTES = ("adamw_8bit", "paged_adamw_8bit")


def weights(seed: int = 0) -> list[torch.nn.Parameter]:
    """A matrix that bitsandbytes holds in 8 bits (4096 numbers or more), and a vector."""
    random = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(size, generator=random)) for size in ((80, 64), (64,))]


def take_steps(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], steps: range) -> None:
    for step in steps:
        random = torch.Generator().manual_seed(100 + step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=random)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def test_two_steps_of_adamw_by_hand() -> None:
    matrix, vector = torch.nn.Parameter(torch.tensor([[2.0]])), torch.nn.Parameter(torch.tensor([2.0]))
    settings = OptimSettings(lr=0.1, betas=[0.9, 0.99], eps=1e-8, weight_decay=0.5)
    optimizer = make_optimizer([matrix, vector], settings)
    for gradient in (4.0, -2.0):
        matrix.grad, vector.grad = torch.tensor([[gradient]]), torch.tensor([gradient])
        optimizer.step()
    # Step 1: both running means, corrected, are those of the one gradient, so the step is lr.
    # Step 2: mean (0.9 * 0.4 - 0.2) / 0.19, square (0.99 * 0.16 + 0.04) / 0.0199.
    second = 0.1 * (0.16 / 0.19) / math.sqrt(0.1984 / 0.0199)
    assert vector.item() == pytest.approx(2.0 - 0.1 - second, rel=1e-6)
    decayed = (2.0 * (1 - 0.1 * 0.5) - 0.1) * (1 - 0.1 * 0.5) - second
    assert matrix.item() == pytest.approx(decayed, rel=1e-6)


def test_fused_adamw_is_adamw_to_the_last_digits() -> None:
    ours, theirs = weights(), weights()
    settings = OptimSettings(lr=1e-3, weight_decay=0.1)
    take_steps(make_optimizer(ours, settings), ours, range(50))
    groups = [{"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:], "weight_decay": 0.0}]
    take_steps(torch.optim.AdamW(groups, lr=1e-3, foreach=False), theirs, range(50))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_a_step_of_rmsprop_by_hand() -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = make_optimizer([weight], OptimSettings(name="rmsprop", lr=0.1))
    weight.grad = torch.tensor([3.0])
    optimizer.step()
    assert weight.item() == pytest.approx(2.0 - 0.1 * 3.0 / math.sqrt(0.01 * 9.0), rel=1e-6)


def test_a_first_step_of_adafactor_by_hand() -> None:
    """Of a gradient of rank one the factors say all: its update is all ones, clipped at 1, times lr and the RMS."""
    weight = torch.nn.Parameter(torch.full((3, 4), 2.0))
    optimizer = make_optimizer([weight], OptimSettings(name="adafactor", lr=0.01))
    weight.grad = torch.outer(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 1.0, 4.0, 2.0]))
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((3, 4), 2.0 - 0.01 * 2.0), rtol=1e-5, atol=0.0)
    assert sum(t.numel() for t in optimizer.state[weight].values()) == 3 + 4 + 1


@pytest.mark.parametrize("name", [*TORCHS_OWN, *OF_BITSANDBYTES])
def test_an_optimiser_goes_on_from_its_saved_state_bit_for_bit(name: str) -> None:
    if name in OF_BITSANDBYTES:
        pytest.importorskip("bitsandbytes")
    settings = OptimSettings(name=name, lr=1e-2)
    straight = weights()
    optimizer = make_optimizer(straight, settings)
    take_steps(optimizer, straight, range(3))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    resumed = [torch.nn.Parameter(p.detach().clone()) for p in straight]
    take_steps(optimizer, straight, range(3, 6))
    file.seek(0)
    fresh = make_optimizer(resumed, settings)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    take_steps(fresh, resumed, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))
    assert not torch.equal(straight[0], weights()[0])


def test_states_of_eight_bits_take_two_bytes_a_weight() -> None:
    pytest.importorskip("bitsandbytes")
    parameters = weights()
    optimizer = make_optimizer(parameters, OptimSettings(name="adamw_8bit", lr=1e-2))
    take_steps(optimizer, parameters, range(1))
    states = optimizer.state[parameters[0]]
    assert {states["state1"].dtype, states["state2"].dtype} == {torch.uint8}
