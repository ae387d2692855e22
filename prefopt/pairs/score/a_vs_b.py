"""Score by a ranker that reads two responses and says which one is better."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar, NamedTuple

from prefopt.errors import UserError
from prefopt.pairs.stages import Asked, Judged, Place
from prefopt.records import Example

__all__ = ["AvsB"]

NOTHING_TO_COMPARE = "no other candidate to compare with"
BASELINE = "baseline"
"""Key of `Candidate.source` that marks the response which others are compared with."""

Shown = tuple[int, int]
"""Two candidates as they are shown: the first as A, the second as B."""
Verdict = tuple[float, float]
"""log p of the word for one response, and of the word for the other: nats."""


@dataclass(frozen=True)
class AvsB:
    """How often the ranker at `reward` prefers a response, each two shown in both orders (SLiC-HF, RSO).

        P(i beats j) = mean over both orders of p(i's word) / (p(A) + p(B))
        score        = mean over the others of P(i beats j)                                 against = all
        score        = log( P / (1 - P) ),  P = P(i beats the baseline)                     against = baseline

    Zhao et al. 2023, arXiv 2305.10425; Liu et al. 2023, arXiv 2309.06657, eq. 7. The ranker: of
    `prefopt train loss=rank_pairwise`. Two responses are shown as in its training; of a word of several tokens p is the
    product. Equal texts beat each other with 0.5. How much of the probability A and B have together is kept beside the
    scores as `on_verdicts`: near 0 the model was trained for something else.

    against: all: every two are compared, k (k - 1) times for k candidates, and selections that play candidates against
        each other take P. baseline: each is compared with the one candidate whose source has {"baseline": true}, which
        itself scores 0; k - 1 others, twice each. Default all.

    A candidate that fits into no comparison is left out; where two are too long together, the one that spoils more
    comparisons, the longer one on ties, and never the baseline.
    Deviations: theirs is one order and an encoder-decoder (T5), and the rest of the vocabulary is not left aside.
    """

    against: str = "all"

    uses: ClassVar[frozenset[str]] = frozenset({"reward"})

    def __post_init__(self) -> None:
        if self.against not in ("all", BASELINE):
            raise ValueError(f"against must be all or {BASELINE}, not {self.against!r}")

    def check(self, asked: Asked) -> None:
        """Raises: UserError for a model that is no language model."""
        from prefopt.pairs.model_checks import check_language_model

        check_language_model(asked.settings.reward, "reward")

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Judged]]:
        """The function that scores. Raises: UserError for a model that is missing or no language model.

        It raises UserError for a prompt that has no baseline, or several, where one is needed.
        """
        from prefopt.data.verdicts import FIRST, SECOND
        from prefopt.pairs.score_models import named, open_language_model

        path = named(place.settings.reward, "reward", "score=a_vs_b", "a ranker of loss=rank_pairwise")
        model = open_language_model(place, path, "reward")
        ids = model.encoder.verdicts("comparisons")
        words = [ids[FIRST], ids[SECOND]]
        room = max(map(len, words))

        def score(examples: Sequence[Example]) -> list[Judged]:
            wanted = [self._wanted(example) for example in examples]
            tokens = [
                model.encoder(example, [_comparison(example, shown) for shown in one.shown], room)
                for example, one in zip(examples, wanted, strict=True)
            ]
            said = model.verdicts(tokens, words)
            judged = []
            for example, one, encoded, found in zip(examples, wanted, tokens, said, strict=True):
                reasons = dict(zip(one.shown, encoded.reasons, strict=True))
                verdicts = {shown: (v[0], v[1]) for shown, v in zip(one.shown, found, strict=True) if v}
                judged.append(_judged(example, one, reasons, verdicts))
            return judged

        return score

    def _wanted(self, example: Example) -> _Wanted:
        """What is asked of an Example."""
        texts = [candidate.text for candidate in example.candidates]
        usable = [place for place, text in enumerate(texts) if text.strip()]
        if self.against == "all":
            return _Wanted(None, tuple((i, j) for i in usable for j in usable if texts[i] != texts[j]))
        marked = [n for n, c in enumerate(example.candidates) if c.source is not None and c.source.get(BASELINE)]
        if len(marked) != 1:
            found = f"{len(marked)} of its candidates are" if marked else "none of its candidates is"
            raise UserError(
                f'{example.id}: against=baseline needs one candidate marked by source {{"{BASELINE}": true}}, and'
                f" {found}",
                "mark one, or set score.against=all",
            )
        (mark,) = marked
        if mark not in usable:
            return _Wanted(mark, ())
        others = [place for place in usable if texts[place] != texts[mark]]
        return _Wanted(mark, tuple(shown for place in others for shown in ((place, mark), (mark, place))))


class _Wanted(NamedTuple):
    """baseline: its place, or None where all are compared. shown: the comparisons."""

    baseline: int | None
    shown: tuple[Shown, ...]


def _comparison(example: Example, shown: Shown) -> str:
    from prefopt.data.verdicts import COMPARISON

    first, second = (example.candidates[place].text for place in shown)
    return COMPARISON.format(first=first, second=second)


def _judged(
    example: Example, wanted: _Wanted, reasons: Mapping[Shown, str | None], verdicts: Mapping[Shown, Verdict]
) -> Judged:
    texts = [candidate.text for candidate in example.candidates]
    out: dict[int, str] = {place: "empty response" for place, text in enumerate(texts) if not text.strip()}
    out |= left_out(texts, {shown: why for shown, why in reasons.items() if why is not None}, wanted.baseline)
    kept = [place for place in range(len(texts)) if place not in out]
    if wanted.baseline is not None and wanted.baseline in out:
        return _none(len(texts), dict.fromkeys(kept, f"baseline: {out[wanted.baseline]}") | out)
    if wanted.baseline is None and len(kept) < 2:
        return _none(len(texts), dict.fromkeys(kept, NOTHING_TO_COMPARE) | out)

    def orders(i: int, j: int) -> list[Verdict]:
        """What was said of i and j, i's word before j's; equal texts are not asked about."""
        if texts[i] == texts[j]:
            return [(0.0, 0.0)]
        (first, second), (second_again, first_again) = verdicts[i, j], verdicts[j, i]
        return [(first, second), (first_again, second_again)]

    scores: list[float | None] = [None] * len(texts)
    wins: list[list[float]] | None = None
    if wanted.baseline is None:
        wins = [[0.5] * len(texts) for _ in texts]  # also of those that are left out, of whom nothing is known
        for i in kept:
            for j in kept:
                wins[i][j] = win_probability(orders(i, j)) if i != j else 0.5
            scores[i] = fmean(wins[i][j] for j in kept if j != i)
    else:
        for i in kept:
            scores[i] = reward_from_baseline(orders(i, wanted.baseline))
    return Judged(
        tuple(scores),
        tuple(out.get(place) for place in range(len(texts))),
        None if wins is None else tuple(map(tuple, wins)),
        tuple(_on_verdicts(place, verdicts) if place in kept else {} for place in range(len(texts))),
    )


def left_out(texts: Sequence[str], spoilt: Mapping[Shown, str], baseline: int | None = None) -> dict[int, str]:
    """Candidates to leave out so that no comparison is left that cannot be shown, with the reason of each.

    spoilt: those that cannot, and why. Of those concerned the one with the most goes first, the longest text on ties,
    then the last; the baseline stays.
    """
    found: dict[int, str] = {}
    rest = dict(spoilt)
    while rest:
        counts = Counter(place for shown in rest for place in shown if place != baseline)
        worst = max(counts, key=lambda place: (counts[place], len(texts[place]), place))
        found[worst] = next(why for shown, why in rest.items() if worst in shown)
        rest = {shown: why for shown, why in rest.items() if worst not in shown}
    return found


def win_probability(orders: Iterable[Verdict]) -> float:
    """P(i beats j), the mean over the orders in which they were shown: log p of i's word and of j's in each."""
    return fmean(math.exp(i - _log_sum((i, j))) for i, j in orders)


def reward_from_baseline(orders: Iterable[Verdict]) -> float:
    """logit of P(y beats the baseline), the mean over the orders: log p of y's word and of the baseline's in each.

    In logarithms throughout, so that a ranker that is certain gives a large number and not an infinite one.
    """
    pairs = [(y - total, base - total) for y, base in orders for total in [_log_sum((y, base))]]
    return _log_sum([y for y, _ in pairs]) - _log_sum([base for _, base in pairs])


def _on_verdicts(place: int, verdicts: Mapping[Shown, Verdict]) -> dict[str, float]:
    """The mean probability of A and B together over the comparisons of a candidate."""
    found = [math.exp(a) + math.exp(b) for shown, (a, b) in verdicts.items() if place in shown]
    return {"on_verdicts": fmean(found)} if found else {}


def _log_sum(values: Sequence[float]) -> float:
    highest = max(values)
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values))


def _none(count: int, reasons: Mapping[int, str]) -> Judged:
    return Judged((None,) * count, tuple(reasons.get(place) for place in range(count)))
