"""In float32, as models give them, token log-probabilities lead to the loss and gradient that float64 leads to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from bed import Row, counts, coupled, make

from prefopt.batch import Responses
from prefopt.losses import make_loss, names

LOWS = (-1e-8, -1e-6, -1e-3, -1.0, -30.0, -104.0, -1e4)


def case(chosen: float, rejected: float) -> Responses:
    """Two prompts whose numbers are exact in float32."""
    exact = [float(torch.tensor(x, dtype=torch.float32)) for x in (chosen, rejected, -0.7)]
    c, r, other = exact
    rows = [[Row((c, c, other), 3 * c - 1, True, 1.0), Row((r, other), 2 * r + 0.5, False, 0.25)]]
    rows += [[Row((other, c), c - 2, True, 0.75), Row((r, r, other, other), 4 * r, False, 0.0)]]
    return make(rows)


def in_float32(r: Responses) -> Responses:
    """The same as a model gives it: float32 tokens, their sums in float64."""
    tokens = r.token_logps.detach().float().requires_grad_()
    one = torch.exp(tokens - tokens.detach())  # carries the tokens' gradient into what follows from them
    return replace(
        r,
        token_logps=tokens,
        logps=torch.zeros(len(r.lengths), dtype=torch.float64).index_add(0, r.row, tokens.double()),
        forward_kl=r.forward_kl.detach().float() * one,  # type: ignore[union-attr]
        reverse_kl=r.reverse_kl.detach().float() * one,  # type: ignore[union-attr]
        collision=r.collision.float(),  # type: ignore[union-attr]
        rewards=torch.zeros(len(r.lengths)).index_add(0, r.row, tokens) / 10,
        prompt_logps=r.prompt_logps.float(),  # type: ignore[union-attr]
    )


def loss_and_gradient(name: str, r: Responses) -> tuple[float, torch.Tensor]:
    total = make_loss({"name": name})(coupled({"name": name}, r)).total(counts(r))
    total.backward()
    assert r.token_logps.grad is not None
    return total.item(), r.token_logps.grad.double()


@pytest.mark.parametrize("name", names())
def test_float32_gives_what_float64_gives(name: str) -> None:
    for chosen in LOWS:
        for rejected in (-1.5, chosen):
            exact, exact_gradient = loss_and_gradient(name, case(chosen, rejected))
            found, gradient = loss_and_gradient(name, in_float32(case(chosen, rejected)))
            assert found == pytest.approx(exact, rel=2e-5, abs=1e-6), (chosen, rejected)
            most = max(1.0, exact_gradient.abs().max().item())
            torch.testing.assert_close(gradient, exact_gradient, rtol=1e-3, atol=1e-6 * most)
