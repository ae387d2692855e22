"""Rankers that speak: Good or Bad after one response, A or B after two; and similarity to a target."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from score_bed import chat, ids_of, make_model, own_logps, place, plain, score
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefopt.data.verdicts import COMPARISON
from prefopt.errors import UserError
from prefopt.pairs.score.a_vs_b import left_out
from prefopt.pairs.score.similarity import span_f1
from prefopt.records import Candidate, Example


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))


EXAMPLES = [
    plain("Once", " there was a frog", " upon", " again {first}", name="p:1"),
    chat("Why?", "Because.", "I do not know", "Because.", name="c:1"),
]


def word_ids(folder: Path, word: str) -> list[int]:
    return AutoTokenizer.from_pretrained(folder)(word, add_special_tokens=False)["input_ids"]


def test_p_good_is_the_product_over_the_words_tokens_after_the_closed_response(tiny: Path) -> None:
    good, bad = word_ids(tiny, "Good"), word_ids(tiny, "Bad")
    assert (len(good), len(bad)) == (4, 3)
    alone = score({"name": "good_bad"}, place(reward=str(tiny)), *EXAMPLES)
    of_two = score({"name": "good_bad", "renormalise": True}, place(reward=str(tiny)), *EXAMPLES)
    for example, one, two in zip(EXAMPLES, alone, of_two, strict=True):
        goods, bads = own_logps(tiny, example, good), own_logps(tiny, example, bad)
        assert one.scores == pytest.approx([math.exp(g) for g in goods], rel=1e-4)
        assert two.scores == pytest.approx([1 / (1 + math.exp(b - g)) for g, b in zip(goods, bads)], rel=1e-4)


def own_wins(folder: Path, example: Example) -> list[list[float]]:
    """P(i beats j) from separate forwards, both orders."""
    texts = [c.text for c in example.candidates]
    a, b = word_ids(folder, "A"), word_ids(folder, "B")

    def first(i: int, j: int) -> float:
        shown = replace(example, candidates=(Candidate(COMPARISON.format(first=texts[i], second=texts[j])),))
        (log_a,), (log_b,) = own_logps(folder, shown, a), own_logps(folder, shown, b)
        return 1 / (1 + math.exp(log_b - log_a))

    count = range(len(texts))
    return [[0.5 if i == j else (first(i, j) + 1 - first(j, i)) / 2 for j in count] for i in count]


def test_wins_are_the_mean_of_both_orders_and_scores_the_mean_over_the_others(tiny: Path) -> None:
    for example, judged in zip(EXAMPLES, score({"name": "a_vs_b"}, place(reward=str(tiny)), *EXAMPLES), strict=True):
        own = own_wins(tiny, example)
        assert judged.wins is not None
        for i, row in enumerate(judged.wins):
            assert row == pytest.approx(own[i], abs=1e-5)
            assert row[i] == 0.5
            assert [row[j] + judged.wins[j][i] for j in range(3)] == pytest.approx([1.0] * 3, abs=1e-12)
        expected = [(sum(row) - 0.5) / 2 for row in own]
        assert judged.scores == pytest.approx(expected, abs=1e-5)
        assert all(0 < details["on_verdicts"] < 1 for details in judged.details)


def test_equal_texts_beat_each_other_by_half_and_everybody_else_alike(tiny: Path) -> None:
    (judged,) = score({"name": "a_vs_b"}, place(reward=str(tiny)), EXAMPLES[1])
    assert judged.wins is not None
    assert judged.wins[0][2] == judged.wins[2][0] == 0.5
    assert judged.wins[0][1] == judged.wins[2][1]
    assert judged.scores[0] == judged.scores[2]


def marked(example: Example, *places: int) -> Example:
    candidates = [replace(c, source={"baseline": True}) if n in places else c for n, c in enumerate(example.candidates)]
    return replace(example, candidates=tuple(candidates))


def test_against_a_baseline_the_score_is_the_logit_of_beating_it(tiny: Path) -> None:
    stage = {"name": "a_vs_b", "against": "baseline"}
    for example in EXAMPLES:
        (judged,) = score(stage, place(reward=str(tiny)), marked(example, 1))
        own = [row[1] for row in own_wins(tiny, example)]
        assert judged.scores == pytest.approx([math.log(p / (1 - p)) for p in own], abs=1e-4)
        assert judged.scores[1] == 0
        assert judged.wins is None


def test_no_baseline_or_several_are_refused_by_the_row(tiny: Path) -> None:
    stage = {"name": "a_vs_b", "against": "baseline"}
    with pytest.raises(UserError, match=r"p:1: against=baseline needs one candidate .* none of its candidates is"):
        score(stage, place(reward=str(tiny)), EXAMPLES[0])
    with pytest.raises(UserError, match="2 of its candidates are"):
        score(stage, place(reward=str(tiny)), marked(EXAMPLES[0], 0, 2))
    with pytest.raises(UserError, match="against must be all or baseline"):
        score({"name": "a_vs_b", "against": "best"}, place(reward=str(tiny)), EXAMPLES[0])


def test_an_unusable_baseline_is_the_reason_of_the_others(tiny: Path) -> None:
    example = marked(plain("Once", " upon", "  ", " a time"), 1)
    (judged,) = score({"name": "a_vs_b", "against": "baseline"}, place(reward=str(tiny)), example)
    assert judged.scores == (None,) * 3
    assert judged.reasons == ("baseline: empty response", "empty response", "baseline: empty response")


def test_one_candidate_has_nothing_to_be_compared_with(tiny: Path) -> None:
    (judged,) = score({"name": "a_vs_b"}, place(reward=str(tiny)), plain("Once", " upon", ""))
    assert judged.reasons == ("no other candidate to compare with", "empty response")
    assert judged.wins is None


def test_two_that_are_too_long_together_cost_the_longer_one(tiny: Path) -> None:
    fits, longer = " ab" * 35, " abc" * 35  # 256 positions: each fits beside the short one
    (judged,) = score({"name": "a_vs_b"}, place(reward=str(tiny)), plain("Once", " x", longer, fits))
    assert judged.reasons == (None, "too long", None)
    assert judged.wins is not None
    assert judged.scores[0] == judged.wins[0][2]


def test_who_spoils_most_comparisons_is_left_out_first() -> None:
    texts = ["aa", "b", "cccc", "d"]
    spoilt = {(0, 2): "too long", (2, 0): "too long", (2, 3): "too long"}
    assert left_out(texts, spoilt) == {2: "too long"}
    assert left_out(texts, {(0, 2): "too long"}) == {2: "too long"}
    assert left_out(texts, {(0, 2): "too long"}, baseline=2) == {0: "too long"}
    assert left_out(texts, {(1, 3): "why"}) == {3: "why"}
    assert left_out(texts, {}) == {}


def own_states(folder: Path, example: Example, text: str) -> torch.Tensor:
    """The last layer's states at the tokens of a response but EOS, of a forward of its own."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt, response = ids_of(AutoTokenizer.from_pretrained(folder), example, text)
    with torch.no_grad():
        found = model(input_ids=torch.tensor([prompt + response]), output_hidden_states=True).hidden_states[-1][0]
    return found[len(prompt) : -1]


def test_similarity_is_that_of_the_states_of_separate_forwards(tiny: Path) -> None:
    target = " there was once a green frog"
    example = replace(EXAMPLES[0], target=target)
    (judged,) = score({"name": "similarity"}, place(policy=str(tiny)), example)
    aim = own_states(tiny, example, target)
    expected = [span_f1(own_states(tiny, example, c.text), aim, [1, 2, 4, 8]) for c in example.candidates]
    assert judged.scores == pytest.approx(expected, abs=1e-5)
    assert len(set(judged.scores)) == 3


def test_a_candidate_that_is_the_target_is_most_similar(tiny: Path) -> None:
    example = replace(EXAMPLES[1], target="Because.")
    (judged,) = score({"name": "similarity"}, place(policy=str(tiny)), example)
    assert judged.scores[0] == pytest.approx(1.0)
    assert judged.scores[0] == judged.scores[2]
    assert judged.scores[1] is not None
    assert judged.scores[1] < 0.999


def test_without_a_target_the_best_given_response_is_it(tiny: Path) -> None:
    given = {"given": True}
    candidates = (
        Candidate(" one thing"),
        Candidate(" the worse answer", score=1.0, source=given),
        Candidate(" the better answer", score=2.0, source=given),
    )
    example = replace(EXAMPLES[0], candidates=candidates)
    (found,) = score({"name": "similarity"}, place(policy=str(tiny)), example)
    aimed = replace(example, target=" the better answer")
    assert score({"name": "similarity"}, place(policy=str(tiny)), aimed)[0].scores == found.scores
    assert found.scores[2] == pytest.approx(1.0)


def test_nothing_to_be_similar_to_is_a_reason(tiny: Path) -> None:
    where = place(policy=str(tiny))
    (judged,) = score({"name": "similarity"}, where, EXAMPLES[0])
    assert judged.reasons == ("no target to compare with",) * 3
    (judged,) = score({"name": "similarity"}, where, replace(EXAMPLES[0], target=" "))
    assert judged.reasons == ("target: empty response",) * 3
    short = replace(plain("Once", " upon a time", "x"), target=" upon a day")
    (judged,) = score({"name": "similarity", "spans": [8]}, where, short)
    assert judged.reasons == (None, "shorter than every span")
    with pytest.raises(UserError, match="spans must be different lengths"):
        score({"name": "similarity", "spans": [0]}, where, short)
