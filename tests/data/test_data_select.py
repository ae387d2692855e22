"""Which responses a method uses and how they pair."""

from __future__ import annotations

import pytest

from prefopt.data.pairing import Pairing
from prefopt.data.rows import Unusable
from prefopt.data.select import select
from prefopt.records import Candidate, Example, Message

BEST_VS_WORST, ALL = Pairing("best_vs_worst"), Pairing("all")
PAIRS, RANKING, LABELS, NONE = (frozenset({n}) for n in ("pairs", "ranking", "labels", "reference"))


def example(*candidates: Candidate) -> Example:
    return Example("f:1", (Message("user", "p"),), candidates)


def scored(**scores: float) -> Example:
    return example(*(Candidate(text, score=score) for text, score in scores.items()))


def kept(selected) -> list[str]:
    return [c.text for c in selected.candidates]


RANKED = scored(a=1, b=3, c=2, d=3, e=0)


def test_best_vs_worst_keeps_two_responses_in_the_order_of_the_file():
    selected = select(RANKED, PAIRS, BEST_VS_WORST)
    assert kept(selected) == ["b", "e"]  # the first of the two best
    assert (selected.pairs, selected.best) == (((0, 1),), 0)
    assert kept(select(scored(r=0, c=1), PAIRS, BEST_VS_WORST)) == ["r", "c"]
    assert select(scored(r=0, c=1), PAIRS, BEST_VS_WORST).pairs == ((1, 0),)


def test_all_makes_every_pair_whose_scores_differ():
    selected = select(RANKED, PAIRS, ALL)
    assert kept(selected) == ["a", "b", "c", "d", "e"]
    assert set(selected.pairs) == {(0, 4), (1, 0), (1, 2), (1, 4), (2, 0), (2, 4), (3, 0), (3, 2), (3, 4)}
    assert selected.best == 1


def test_ranking_keeps_every_response():
    assert kept(select(RANKED, PAIRS | RANKING, BEST_VS_WORST)) == ["a", "b", "c", "d", "e"]


def test_imitation_keeps_the_best_response_and_no_pair():
    selected = select(RANKED, NONE, ALL)
    assert (kept(selected), selected.pairs, selected.best) == (["b"], (), 0)
    assert kept(select(example(Candidate("only")), NONE, ALL)) == ["only"]


def test_imitation_does_not_mind_an_empty_rejected_response_but_an_empty_chosen_one():
    assert kept(select(example(Candidate("c", 1), Candidate("", 0)), NONE, ALL)) == ["c"]
    with pytest.raises(Unusable, match="empty response"):
        select(example(Candidate(" \n", 1), Candidate("r", 0)), NONE, ALL)


def test_labels_come_from_the_file_or_from_the_pair():
    assert select(example(Candidate("c", label=False)), LABELS, ALL).labels == (False,)
    selected = select(scored(r=0, c=1), LABELS, BEST_VS_WORST)
    assert (kept(selected), selected.labels) == (["r", "c"], (False, True))
    with pytest.raises(Unusable, match="no label"):
        select(RANKED, LABELS, ALL)  # the middle ones are neither


def test_identical_pairs_are_counted_and_dropped():
    selected = select(example(Candidate("x", 2), Candidate("y", 1), Candidate("x", 0)), PAIRS, ALL)
    assert set(selected.pairs) == {(0, 1), (1, 2)}
    assert selected.num_identical == 1


@pytest.mark.parametrize(
    ("row", "needs", "reason"),
    [
        (scored(a=1, b=1), PAIRS, "no pair"),
        (scored(a=1), PAIRS, "no pair"),
        (example(Candidate("a"), Candidate("b")), PAIRS, "no pair"),
        (example(Candidate("a", 1), Candidate("b")), PAIRS, "missing score"),
        (example(Candidate("a", 1), Candidate("a", 0)), PAIRS, "chosen equals rejected"),
        (example(Candidate("a", 1), Candidate("a", 0)), LABELS, "chosen equals rejected"),
        (example(Candidate("a", 1), Candidate("", 0)), PAIRS, "empty response"),
        (example(Candidate("a", label=False)), NONE, "undesirable response for imitation"),
        (scored(a=1, b=1), RANKING, "no ranking"),
        (scored(a=1, b=0), PAIRS | {"margins"}, "missing margins"),
    ],
)
def test_what_cannot_serve_says_why(row, needs, reason):
    with pytest.raises(Unusable) as error:
        select(row, needs, BEST_VS_WORST)
    assert error.value.reason == reason


def test_margins_are_kept_per_response():
    row = example(Candidate("a", 1, margins=(0.5, 2.0)), Candidate("b", 0, margins=(1.0, 3.0)))
    assert select(row, PAIRS | {"margins"}, ALL).margins == ((0.5, 2.0), (1.0, 3.0))
