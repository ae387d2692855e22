"""Attention over a shared axis: both kernels against plain softmax over who may see whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_policy import EXAMPLES, FAMILIES, make_model

from prefopt.batch import Segment, Span
from prefopt.errors import UserError
from prefopt.model.attention import SharedLayout, shared_prompt_attention
from prefopt.model.flex import BLOCK, blocks_of
from prefopt.model.kernel import TRIAL, settle_kernel
from prefopt.model.policy import Policy
from prefopt.pack import pack


def visible(segments: tuple[Segment, ...], window: int | None) -> torch.Tensor:
    """[T, T], written down from the definition: own prompt and own response, not later, within the window."""
    length = max(s.stop for prompt, responses in segments for s in (prompt, *responses))
    seen = torch.zeros(length, length, dtype=torch.bool)
    for prompt, responses in segments:
        for own in (prompt, *responses):
            places = [*range(prompt.start, prompt.stop), *(() if own == prompt else range(own.start, own.stop))]
            for number, q in enumerate(places):
                if own.start <= q < own.stop:
                    first = 0 if window is None else max(0, number - window + 1)
                    seen[q, places[first : number + 1]] = True
    return seen


def by_definition(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor, cap: float | None):
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("kernel", ["segments", "flex"])
@pytest.mark.parametrize(("window", "cap"), [(None, None), (7, None), (200, None), (None, 2.0), (33, 1.5)])
def test_each_kernel_is_attention_by_definition(kernel: str, window: int | None, cap: float | None) -> None:
    torch.manual_seed(0)
    length = TRIAL[-1].responses[-1].stop
    shapes = [(1, 4, length, 16), (1, 2, length, 16), (1, 2, length, 16)]
    needs_grad = kernel == "segments"  # on a CPU FlexAttention has a forward only; tests/gpu has its gradients
    states = [torch.randn(shape, dtype=torch.float64, requires_grad=needs_grad) for shape in shapes]
    weight = torch.randn(1, length, 4, 16, dtype=torch.float64)
    layout = SharedLayout(TRIAL, kernel)
    found, _ = shared_prompt_attention(
        torch.nn.Identity(), *states, None, sliding_window=window, softcap=cap, shared_layout=layout
    )
    expected = by_definition(*states, visible(TRIAL, window), cap)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    if needs_grad:
        for a, b in zip(*(torch.autograd.grad((x * weight).sum(), states) for x in (found, expected)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("window", [None, 1, 130, 300])
@pytest.mark.parametrize("segments", [TRIAL, (Segment(Span(0, 600), (Span(600, 1000), Span(1000, 1500))),)])
def test_blocks_hold_all_that_is_seen_and_whole_blocks_nothing_else(
    segments: tuple[Segment, ...], window: int | None
) -> None:
    seen = visible(segments, window).numpy()
    some, every = blocks_of(segments, len(seen), window)
    for row, column in np.ndindex(some.shape):
        block = seen[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK]
        assert not (some[row, column] and every[row, column])
        if block.any():
            assert some[row, column] or every[row, column]
        if every[row, column]:
            assert block.shape == (BLOCK, BLOCK)
            assert block.all()


def test_long_prompts_and_responses_have_whole_blocks() -> None:
    some, every = blocks_of((Segment(Span(0, 1024), (Span(1024, 2048), Span(2048, 3072))),), 3072, None)
    assert every.sum() == 3 * 28 + 2 * 64  # below the diagonals of prompt and responses; responses over the prompt
    assert some.sum() == 24  # the diagonals
    assert not every[16:, 8:16].any()  # the second response sees nothing of the first
    assert not some[16:, 8:16].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_gives_the_same_with_either_kernel(family: str) -> None:
    policy = Policy(make_model(FAMILIES[family]))
    batch = pack(EXAMPLES)
    found = {}
    with torch.no_grad():
        for policy.kernel in ("segments", "flex"):
            found[policy.kernel] = policy(batch).token_logps
    # Soft-capped scores go through a float32 softmax, as Gemma 2 has it.
    torch.testing.assert_close(found["flex"], found["segments"], rtol=1e-6, atol=1e-8)


def test_a_kernel_that_cannot_train_here_is_refused() -> None:
    policy = Policy(make_model(FAMILIES["llama"]))
    with pytest.raises(UserError, match=r"model\.attention=flex: .*CPU"):
        settle_kernel(policy, "flex", torch.float32)
    assert policy.kernel == "segments"


def test_auto_takes_segments_on_a_cpu() -> None:
    policy = Policy(make_model(FAMILIES["llama"]))
    assert settle_kernel(policy, "auto", torch.float32) == ""
    assert policy.kernel == "segments"
