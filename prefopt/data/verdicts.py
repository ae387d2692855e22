"""Judging as text: responses that end in a word which says what they are worth, and that word alone is predicted.

A response is followed by "Good" or "Bad" by its label (Zhao et al. 2023, SLiC-HF, the pointwise ranker). A pair is
shown in one response, the two one after the other, followed by "A" or "B" for the better one (the pairwise ranker), and
in both orders, so that the place tells nothing. What is judged is rendered and closed with EOS as every response is.
"""

from __future__ import annotations

from dataclasses import replace

from prefopt.data.select import Selected
from prefopt.records import Candidate

GOOD, BAD = "Good", "Bad"
FIRST, SECOND = "A", "B"
COMPARISON = "[A]\n{first}\n\n[B]\n{second}\n\n"
"""What two responses are shown as; whoever asks a trained judge has to write the same."""


def words_of(needs: frozenset[str]) -> tuple[str, str]:
    """The two verdicts that a method with these needs may meet."""
    return (FIRST, SECOND) if "comparisons" in needs else (GOOD, BAD)


def judged(selected: Selected, needs: frozenset[str]) -> Selected:
    """`selected` with the verdicts that the needs ask for, each pair in both orders where they are of pairs."""
    if "comparisons" in needs:
        texts = [selected.candidates[w].text for w, _ in selected.pairs]
        others = [selected.candidates[r].text for _, r in selected.pairs]
        shown = [words for w, r in zip(texts, others) for words in (_comparison(w, r), _comparison(r, w))]
        return replace(
            selected,
            candidates=tuple(Candidate(words) for words in shown),
            pairs=(),
            best=0,
            scores=None,
            margins=None,
            verdicts=(FIRST, SECOND) * len(selected.pairs),
        )
    if "verdicts" in needs:
        assert selected.labels is not None, "a method with verdicts lists labels among its needs"
        return replace(selected, verdicts=tuple(GOOD if label else BAD for label in selected.labels))
    return selected


def _comparison(first: str, second: str) -> str:
    return COMPARISON.format(first=first, second=second)
