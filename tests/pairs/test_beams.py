"""Beams: one group is what transformers finds; several groups keep away from each other."""

from __future__ import annotations

import pytest
import torch

from prefopt.pairs.beams import Searching, search
from prefopt.pairs.lanes import Lanes
from tests.pairs.test_sampling import prompts_of, tiny

ENDS = frozenset({1, 2, 30, 31, 32})


def searching(**changes: object) -> Searching:
    usual = {
        "groups": 1,
        "width": 4,
        "penalty": 0.0,
        "length_penalty": 1.0,
        "temperature": 1.0,
        "max_new_tokens": 12,
        "ends": ENDS,
    }
    return Searching(**{**usual, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("length_penalty", [0.4, 1.0, 1.6])
@pytest.mark.parametrize("max_new_tokens", [3, 12])
@pytest.mark.parametrize("budget", [1, 150, 10_000])
def test_one_group_finds_the_beams_of_transformers(length_penalty: float, max_new_tokens: int, budget: int) -> None:
    model, prompts = tiny(), prompts_of(5, 9, 2, 7, 3)
    how = searching(length_penalty=length_penalty, max_new_tokens=max_new_tokens)
    for prompt, beams in zip(prompts, search(Lanes(model), prompts, how, budget), strict=True):
        expected = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=4,
            num_return_sequences=4,
            length_penalty=length_penalty,
            eos_token_id=sorted(ENDS),
            pad_token_id=1,
            return_dict_in_generate=True,
            output_scores=True,
        )
        texts = [[t for t in row if t not in ENDS] for row in expected.sequences[:, len(prompt) :].tolist()]
        assert [beam.tokens for beam in beams] == texts
        assert [beam.value for beam in beams] == pytest.approx(expected.sequences_scores.tolist(), abs=1e-5)


def test_groups_begin_differently_where_the_penalty_is_large() -> None:
    model, prompts = tiny(), prompts_of(5, 9)
    for beams in search(Lanes(model), prompts, searching(groups=6, width=1, penalty=1000.0, ends=frozenset()), 10_000):
        assert len({beam.tokens[0] for beam in beams}) == 6


def test_without_a_penalty_every_group_is_the_first() -> None:
    model, prompts = tiny(), prompts_of(5, 9)
    for beams in search(Lanes(model), prompts, searching(groups=3, width=2), 10_000):
        assert beams[0:2] == beams[2:4] == beams[4:6]


def test_the_first_group_is_not_touched_by_the_penalty() -> None:
    model, prompts = tiny(), prompts_of(5, 9)
    alone = search(Lanes(model), prompts, searching(width=2), 10_000)
    grouped = search(Lanes(model), prompts, searching(groups=3, width=2, penalty=3.0), 10_000)
    assert [beams[:2] for beams in grouped] == alone


def test_a_beams_log_probability_is_that_of_its_tokens() -> None:
    model, prompts = tiny(), prompts_of(6)
    for beam in search(Lanes(model), prompts, searching(groups=2, width=2, penalty=1.0, ends=frozenset({1})), 999)[0]:
        said = [*beam.tokens, 1] if beam.stopped else beam.tokens
        with torch.no_grad():
            logps = model(torch.tensor([prompts[0] + said])).logits[0].log_softmax(-1)
        found = sum(float(logps[len(prompts[0]) + n - 1, token]) for n, token in enumerate(said))
        assert beam.logp == pytest.approx(found, abs=1e-4)
