"""Pairs of a ranking: each selection by hand, the gap, and what holds for every ranking."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefopt.data.pairing import Pairing
from prefopt.data.rows import Unusable
from prefopt.data.select import select
from prefopt.records import Candidate, Example, Message

SELECTIONS = ("best_vs_worst", "all", "adjacent", "random")
PAIRS = frozenset({"pairs"})


def ranking(*scores: float, texts: str | None = None, prompt: str = "p", row: int = 1) -> Example:
    """Responses "a", "b", ... with these scores."""
    texts = texts or "abcdefghijklmnop"[: len(scores)]
    candidates = tuple(Candidate(text, score=score) for text, score in zip(texts, scores, strict=True))
    return Example(f"f:{row}", (Message("user", prompt),), candidates)


def pairs(example: Example, which: str, gap: float = 0.0) -> list[str]:
    """The pairs as two letters: chosen, rejected."""
    scores = [c.score for c in example.candidates if c.score is not None]
    found = Pairing(which, gap)(example, scores).pairs
    return [example.candidates[w].text + example.candidates[r].text for w, r in found]


def test_each_selection_of_a_ranking_with_a_tie():
    tied = ranking(1, 3, 2, 3, 0)  # b and d are best
    assert pairs(tied, "best_vs_worst") == ["be"]
    assert set(pairs(tied, "all")) == {"ae", "ba", "bc", "be", "ca", "ce", "da", "dc", "de"}
    assert pairs(tied, "adjacent") == ["bc", "ca", "ae"]  # of the best ones the first in the file
    assert set(pairs(tied, "random")) <= set(pairs(tied, "all"))
    assert len(pairs(tied, "random")) == 1


def test_equal_scores_make_no_pair_whatever_is_selected():
    for which in SELECTIONS:
        assert pairs(ranking(2, 2, 2), which) == []
        assert pairs(ranking(2), which) == []
        assert Pairing(which)(ranking(2, 2), []).pairs == ()


def test_a_gap_leaves_out_what_is_closer_and_counts_it():
    example = ranking(1, 3, 2.5, 0)
    assert pairs(example, "best_vs_worst", 3) == ["bd"]
    assert pairs(example, "best_vs_worst", 3.1) == []
    assert pairs(example, "all", 1.5) == ["ba", "bd", "ca", "cd"]
    assert pairs(example, "adjacent", 1) == ["ca", "ad"]
    assert {which: Pairing(which, 1.5)(example, [1, 3, 2.5, 0]).num_close for which in SELECTIONS} == {
        "best_vs_worst": 0,
        "all": 2,  # bc and ad
        "adjacent": 2,
        "random": 2,
    }


def test_a_gap_that_is_met_exactly_in_decimals_is_met():
    assert 0.3 - 0.1 < 0.2
    assert pairs(ranking(0.1, 0.3), "best_vs_worst", 0.2) == ["ba"]
    assert pairs(ranking(0.1, 0.3), "best_vs_worst", 0.2001) == []


@pytest.mark.parametrize("which", SELECTIONS)
def test_a_row_whose_scores_lie_too_close_says_so(which):
    with pytest.raises(Unusable) as error:
        select(ranking(1, 1.5, 1.25), PAIRS, Pairing(which, 1.0))
    assert error.value.reason == "score gap too small"
    assert error.value.detail == "scores lie 0.5 apart, data.min_score_gap 1"


def test_the_gap_applies_to_labels_that_are_made_of_pairs():
    labels = frozenset({"labels"})
    assert select(ranking(0, 2), labels, Pairing("best_vs_worst", 2.0)).labels == (False, True)
    with pytest.raises(Unusable, match="score gap too small"):
        select(ranking(0, 2), labels, Pairing("best_vs_worst", 2.5))


def test_the_same_text_twice_is_no_pair():
    assert pairs(ranking(3, 2, 1, texts="xyx"), "all") == ["xy", "yx"]
    assert pairs(ranking(3, 2, 1, texts="xxy"), "adjacent") == ["xy"]
    assert all(pairs(ranking(3, 1, 0, texts="xxy", prompt=str(n)), "random") == ["xy"] for n in range(20))


def test_random_is_decided_by_the_words_alone():
    example = ranking(1, 3, 2, 3, 0)
    assert len({tuple(pairs(ranking(1, 3, 2, 3, 0, row=n), "random")) for n in range(9)}) == 1
    assert pairs(ranking(10, 30, 20, 30, 0), "random") == pairs(example, "random")
    assert len({tuple(pairs(ranking(1, 3, 2, 3, 0, prompt=f"p{n}"), "random")) for n in range(99)}) == 9


def test_random_is_the_same_on_every_machine():
    # Recorded: they may never change, or a run that is repeated sees other pairs.
    drawn = [pairs(ranking(0, 1, 2, 3, prompt=f"p{n}"), "random")[0] for n in range(8)]
    assert drawn == ["ca", "cb", "dc", "ba", "ca", "dc", "db", "ca"]


def test_random_takes_every_pair_as_often_as_another():
    counts = Counter(pairs(ranking(0, 1, 2, prompt=f"p{n}"), "random")[0] for n in range(3000))
    assert set(counts) == {"ba", "ca", "cb"}
    assert all(900 < count < 1100 for count in counts.values())  # 1000, give or take four standard deviations


def test_responses_in_no_pair_are_not_kept_and_the_best_is_of_a_pair():
    example = ranking(3, 2.9, 1, 0.5)
    selected = select(example, PAIRS, Pairing("adjacent", 1.0))
    assert [c.text for c in selected.candidates] == ["b", "c"]
    assert (selected.pairs, selected.best, selected.best_text) == (((0, 1),), 0, "b")
    assert (selected.num_unused, selected.num_close) == (2, 2)
    for number in range(20):
        drawn = select(ranking(3, 2, 1, prompt=str(number)), PAIRS, Pairing("random"))
        assert len(drawn.candidates) == 2
        assert drawn.best == drawn.pairs[0][0]


RANKINGS = st.lists(st.tuples(st.sampled_from("abc"), st.floats(-5, 5) | st.integers(-2, 2)), min_size=1, max_size=7)


@pytest.mark.parametrize("which", SELECTIONS)
@given(rows=RANKINGS, gap=st.floats(0, 4))
def test_every_chosen_score_exceeds_its_rejected_by_the_gap(which, rows, gap):
    texts, scores = zip(*rows, strict=True)
    example = ranking(*map(float, scores), texts="".join(texts))
    found = Pairing(which, gap)(example, list(map(float, scores))).pairs
    assert len(set(found)) == len(found)
    assert len(found) <= {"best_vs_worst": 1, "adjacent": len(rows) - 1, "random": 1}.get(which, len(rows) ** 2)
    for chosen, rejected in found:
        assert scores[chosen] > scores[rejected]
        assert scores[chosen] - scores[rejected] >= gap * (1 - 1e-8)
        assert texts[chosen] != texts[rejected]
    if which != "all" and found:
        assert set(found) <= set(Pairing("all", gap)(example, list(map(float, scores))).pairs)
