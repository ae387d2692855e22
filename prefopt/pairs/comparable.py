"""Which candidates of a prompt can be compared at all, and why there is no pair where there is none.

Of equal texts only the first counts wherever scores alone decide: the second adds nothing, and a judge that scored it
otherwise would make pairs that contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations

from prefopt.pairs.ranking import Compare, Pair, by_scores, by_wins
from prefopt.pairs.stages import Selected, wins_of
from prefopt.records import Candidate

ONE_CANDIDATE = "there is only one candidate"
ONE_TEXT = "all candidates are the same text"
EQUAL_SCORES = "all scores are equal"
NO_PAIR = "no two candidates differ in text and in score"
NO_PAIR_MET = "those that met are equal in text or in score"


def scores_of(candidates: Sequence[Candidate]) -> list[float]:
    """The scores; every candidate that reaches a selector has one."""
    scores = [c.score for c in candidates if c.score is not None]
    assert len(scores) == len(candidates), "a selector was given a candidate without a score"
    return scores


def distinct(candidates: Sequence[Candidate]) -> list[int]:
    """The place of the first candidate of each text, in order."""
    first: dict[str, int] = {}
    for place, candidate in enumerate(candidates):
        first.setdefault(candidate.text, place)
    return list(first.values())


def why_none(candidates: Sequence[Candidate], compare: Compare | None = None) -> str:
    """Why these candidates cannot make a pair, whichever are taken; empty where they may.

    compare: what decides; None for the scores.
    """
    if len(candidates) == 1:
        return ONE_CANDIDATE
    places = distinct(candidates)
    if len(places) == 1:
        return ONE_TEXT
    decide = compare or by_scores(scores_of(candidates))
    return "" if any(decide(i, j) for i, j in permutations(range(len(candidates)), 2)) else EQUAL_SCORES


def better_pairs(candidates: Sequence[Candidate]) -> tuple[list[Pair], str]:
    """Every (chosen, rejected) of different texts of which chosen has the higher score; the reason where there is none.

    In order of chosen's place, then of rejected's.
    """
    why = why_none(candidates)
    if why:
        return [], why
    scores, places = scores_of(candidates), distinct(candidates)
    pairs = [(i, j) for i, j in permutations(places, 2) if scores[i] > scores[j]]
    return pairs, "" if pairs else NO_PAIR


def widest(pairs: Iterable[Pair], scores: Sequence[float]) -> Pair:
    """The pair of the widest gap in score; of several the first by chosen's place, then by rejected's."""
    return min(pairs, key=lambda pair: (scores[pair[1]] - scores[pair[0]], pair))


def comparison(candidates: Sequence[Candidate]) -> Compare:
    """What decides between two: a pairwise judge where one spoke, else the scores."""
    wins = wins_of(candidates)
    return by_scores(scores_of(candidates)) if wins is None else by_wins(wins)


def of_different_texts(compare: Compare, candidates: Sequence[Candidate]) -> Compare:
    """The same, but that equal texts tie."""
    return lambda i, j: 0.0 if candidates[i].text == candidates[j].text else compare(i, j)


def taken(pairs: Iterable[Pair], reason: str) -> Selected:
    """These pairs, or the reason where there is none."""
    found = tuple(pairs)
    return Selected(found) if found else Selected(reason=reason)
