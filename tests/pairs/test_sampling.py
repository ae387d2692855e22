"""Answers of policies: what is drawn, that company and order change nothing, and that a prompt is read once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from prefopt.pairs.lanes import Lanes
from prefopt.pairs.sampling import Drawing, draw, sample, uniforms_of

ENDS = frozenset({1, 2})


def tiny(kind: str = "llama") -> LlamaForCausalLM | MistralForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 60,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.5,
    }
    if kind == "sliding":
        return MistralForCausalLM(MistralConfig(**sizes, sliding_window=4)).eval()
    return LlamaForCausalLM(LlamaConfig(**sizes)).eval()


def prompts_of(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 60, (length,), generator=generator).tolist() for length in lengths]


def keys(prompts: list[list[int]]) -> list[str]:
    return [str(prompt) for prompt in prompts]


def drawing(**changes: object) -> Drawing:
    return Drawing(**{"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 12, "ends": ENDS, **changes})  # type: ignore[arg-type]


def greedy(model: torch.nn.Module, prompt: list[int], count: int) -> list[int]:
    """The likeliest tokens, each by a forward over all of the sequence, without a cache."""
    tokens: list[int] = []
    while len(tokens) < count:
        with torch.no_grad():
            token = int(model(torch.tensor([prompt + tokens])).logits[0, -1].argmax())
        if token in ENDS:
            return tokens
        tokens.append(token)
    return tokens


@pytest.mark.parametrize("kind", ["llama", "sliding"])
@pytest.mark.parametrize("budget", [1, 45, 10_000])
def test_greedy_answers_are_those_of_whole_forwards_whoever_stands_beside(kind: str, budget: int) -> None:
    model, prompts = tiny(kind), prompts_of(5, 11, 2, 7, 3, 9)
    how = drawing(temperature=0)
    found = sample(Lanes(model), prompts, 1, how, uniforms_of(0, 0, keys(prompts), 12), budget)
    assert [answers[0].tokens for answers in found] == [greedy(model, prompt, 12) for prompt in prompts]


def test_company_does_not_change_samples() -> None:
    model, prompts = tiny(), prompts_of(5, 11, 2, 7, 3, 9)
    together = sample(Lanes(model), prompts, 4, drawing(), uniforms_of(7, 0, keys(prompts), 12), 10_000)
    for prompt, expected in zip(prompts, together, strict=True):
        alone = sample(Lanes(model), [prompt], 4, drawing(), uniforms_of(7, 0, keys([prompt]), 12), 1)
        assert alone == [expected]


def test_rows_that_wait_take_the_places_of_those_that_ended() -> None:
    model, prompts = tiny(), prompts_of(*range(2, 30))
    few = sample(Lanes(model), prompts, 2, drawing(), uniforms_of(7, 0, keys(prompts), 12), 200)
    all_at_once = sample(Lanes(model), prompts, 2, drawing(), uniforms_of(7, 0, keys(prompts), 12), 10**6)
    assert few == all_at_once


def test_another_seed_policy_or_number_draws_another_answer() -> None:
    model, prompts = tiny(), prompts_of(6)
    whole = drawing(ends=frozenset())  # one that ends after a token may well be drawn twice
    answers = [
        tuple(answer.tokens)
        for seed, policy in ((1, 0), (2, 0), (1, 1))
        for answer in sample(Lanes(model), prompts, 3, whole, uniforms_of(seed, policy, keys(prompts), 12), 9999)[0]
    ]
    assert len(set(answers)) == 9


def test_frequencies_are_the_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05])
    count = 20_000
    logits = probabilities.log().expand(count, 5)
    drawn = Counter(draw(logits, np.random.default_rng(0).random(count).tolist(), drawing()).tolist())
    for token, p in enumerate(probabilities.tolist()):
        error = (p * (1 - p) / count) ** 0.5
        assert abs(drawn[token] / count - p) < 4 * error


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"top_k": 2}, {0: 5 / 7, 1: 2 / 7}),
        ({"top_p": 0.6}, {0: 5 / 7, 1: 2 / 7}),  # 0.5 does not hold 0.6, 0.7 does
        ({"top_p": 0.5}, {0: 1.0}),
        (
            {"temperature": 0.5},
            {0: 0.25 / 0.325, 1: 0.04 / 0.325, 2: 0.0225 / 0.325, 3: 0.01 / 0.325, 4: 0.0025 / 0.325},
        ),
        ({"top_k": 3, "top_p": 0.59}, {0: 0.5 / 0.7, 1: 0.2 / 0.7}),  # of what top_k leaves, 0.588 is less than 0.59
    ],
)
def test_what_may_be_drawn_and_how_often(how: dict[str, float], expected: dict[int, float]) -> None:
    logits = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05]).log()
    points = (np.arange(10_000) + 0.5) / 10_000  # every ten-thousandth of the unit interval
    drawn = Counter(draw(logits.expand(10_000, 5), points.tolist(), drawing(**how)).tolist())
    assert drawn.keys() == expected.keys()
    for token, p in expected.items():
        assert drawn[token] / 10_000 == pytest.approx(p, abs=2e-4)


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(3, 5)
    assert draw(logits, [0.0, 0.5, 1 - 1e-16], drawing()).tolist() == [1, 3, 3]


def test_an_answer_ends_with_the_first_end_or_at_the_limit() -> None:
    model, prompts = tiny(), prompts_of(4)
    found = sample(Lanes(model), prompts, 64, drawing(), uniforms_of(3, 0, keys(prompts), 12), 10_000)[0]
    assert {answer.stopped for answer in found} == {True, False}
    for answer in found:
        assert not ENDS & set(answer.tokens)
        assert answer.stopped or len(answer.tokens) == 12
        assert len(answer.tokens) <= 12


def test_each_prompt_is_read_once_for_all_its_samples() -> None:
    model, prompts = tiny(), prompts_of(20, 20)
    read: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _module, _args, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    sample(Lanes(model), prompts, 8, drawing(max_new_tokens=1), uniforms_of(0, 0, keys(prompts), 1), 10_000)
    hook.remove()
    assert read == [40]
