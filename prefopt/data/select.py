"""Which responses of an example a method uses, how they pair, which one is imitated, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from prefopt.data.pairing import Pair, Paired, Pairing
from prefopt.data.recognised import SCORES
from prefopt.data.rows import Unusable
from prefopt.records import Candidate, Example


class LabelledBy(StrEnum):
    """Where a row's labels come from."""

    FILE = "file"
    PAIR = "pair"  # chosen is desirable, rejected is not
    DEMONSTRATION = "demonstration"  # one response that nobody judged


@dataclass(frozen=True)
class Selected:
    """The responses kept of an example, in the order of the file.

    candidates: a target that is none of them stands behind them. It is in no pair, and its score and margins are 0.0,
    which say nothing: a loss leaves it out by its place.
    pairs: (chosen, rejected) as places in `candidates`. best: the place an NLL imitates; best_text: its words in the
    file. target: the place of the response that is there to be imitated. verdicts: the word that follows each response
    and alone is predicted.
    num_unused: candidates that are not kept. num_added: 1 where the target stands behind the candidates.
    num_close, num_identical: pairs left out, as `Paired` counts them.
    """

    candidates: tuple[Candidate, ...]
    pairs: tuple[Pair, ...]
    best: int
    best_text: str
    labels: tuple[bool, ...] | None = None
    labelled_by: LabelledBy | None = None
    scores: tuple[float, ...] | None = None
    margins: tuple[tuple[float, ...], ...] | None = None
    target: int | None = None
    verdicts: tuple[str, ...] | None = None
    num_unused: int = 0
    num_added: int = 0
    num_close: int = 0
    num_identical: int = 0


def select(example: Example, needs: frozenset[str], pairing: Pairing) -> Selected:
    """What a method with these needs learns from `example`.

    Without pairs, ranking or labels among the needs only the best response is kept: the method imitates.
    With pairs alone, responses that are in no pair are not kept, and the best is the best of those that are; with the
    need "best" it is the best of all.

    Raises: Unusable where the example lacks what is needed, or a response it would use is empty.
    """
    candidates = example.candidates
    scores = _scores(candidates, needs)
    best = _best(candidates, scores)
    if not needs & {"pairs", "ranking", "labels"}:
        if candidates[best].label is False:
            raise Unusable("undesirable response for imitation", "its label is false")
        return _finish(example, [best], best, Paired(), None, needs)
    labelled_by = _labelled_by(candidates, needs)
    paired = pairing(example, scores)
    must_pair = "pairs" in needs or labelled_by is LabelledBy.PAIR
    if must_pair and not paired.pairs:
        raise _no_pair(candidates, scores, paired, pairing)
    if "ranking" in needs and len(set(scores)) < 2:
        raise Unusable("no ranking", "fewer than two different scores")
    keep = list(range(len(candidates)))
    if "ranking" not in needs and must_pair:
        in_pairs = {place for pair in paired.pairs for place in pair}
        if "best" not in needs:
            best = max(sorted(in_pairs), key=lambda place: scores[place])
        keep = sorted(in_pairs | {best})
    return _finish(example, keep, best, paired, labelled_by, needs)


def _scores(candidates: Sequence[Candidate], needs: frozenset[str]) -> list[float]:
    """Every candidate's score, or none at all."""
    scores = [c.score for c in candidates if c.score is not None]
    if len(scores) < len(candidates) and (scores or needs & SCORES):
        raise Unusable("missing score", f"{len(scores)} of {len(candidates)} responses have one")
    if "probabilities" in needs:
        for score in scores:
            if not 0 <= score <= 1:
                raise Unusable("score is no probability", f"{score:g} is not in [0, 1]")
    return scores


def _best(candidates: Sequence[Candidate], scores: list[float]) -> int:
    """The highest score, the first on ties; without scores the first that is not labelled undesirable."""
    if scores:
        return scores.index(max(scores))
    return next((place for place, c in enumerate(candidates) if c.label is not False), 0)


def _labelled_by(candidates: Sequence[Candidate], needs: frozenset[str]) -> LabelledBy | None:
    if "labels" not in needs:
        return None
    if all(c.label is not None for c in candidates):
        return LabelledBy.FILE
    if len(candidates) > 1:
        return LabelledBy.PAIR
    if "demonstrations" not in needs:
        raise Unusable("no label", "one response, neither labelled nor chosen over another")
    return LabelledBy.DEMONSTRATION


def _no_pair(candidates: Sequence[Candidate], scores: list[float], paired: Paired, pairing: Pairing) -> Unusable:
    if paired.num_identical:
        return Unusable(
            "chosen equals rejected", f"the same {len(candidates[_best(candidates, scores)].text)} characters"
        )
    if paired.num_close:
        apart = f"scores lie {max(scores) - min(scores):g} apart"
        return Unusable("score gap too small", f"{apart}, data.min_score_gap {pairing.min_score_gap:g}")
    why = "one response" if len(candidates) == 1 else "all scores are equal" if scores else "no scores"
    return Unusable("no pair", why)


def _finish(
    example: Example, keep: list[int], best: int, paired: Paired, labelled_by: LabelledBy | None, needs: frozenset[str]
) -> Selected:
    kept = tuple(example.candidates[place] for place in keep)
    for old, candidate in zip(keep, kept):
        if not candidate.text.strip():
            raise Unusable("empty response", f"response {old + 1} of {len(example.candidates)}")
    new = {old: place for place, old in enumerate(keep)}
    pairs = tuple((new[w], new[r]) for w, r in paired.pairs)
    target, added = _target(example, kept) if "targets" in needs else (None, ())
    margins = _margins(kept) if "margins" in needs else None
    scored = needs & (SCORES | {"ranking"})
    return Selected(
        kept + added,
        pairs,
        new[best],
        example.candidates[best].text,
        labels=None if labelled_by is None else _labels(kept, pairs, labelled_by),
        labelled_by=labelled_by,
        scores=tuple(float(c.score or 0) for c in kept + added) if scored else None,
        margins=None if margins is None else margins + tuple((0.0,) * len(margins[0]) for _ in added),
        target=target,
        num_unused=len(example.candidates) - len(kept),
        num_added=len(added),
        num_close=paired.num_close,
        num_identical=paired.num_identical,
    )


def _target(example: Example, kept: tuple[Candidate, ...]) -> tuple[int, tuple[Candidate, ...]]:
    """The place of the response to imitate, and itself where it is none of those that are kept."""
    if example.target is None or not example.target.strip():
        raise Unusable("empty response", "the response to imitate")
    texts = [candidate.text for candidate in kept]
    if example.target in texts:
        return texts.index(example.target), ()
    return len(kept), (Candidate(example.target),)


def _labels(kept: tuple[Candidate, ...], pairs: tuple[Pair, ...], labelled_by: LabelledBy) -> tuple[bool, ...]:
    if labelled_by is LabelledBy.FILE:
        return tuple(bool(c.label) for c in kept)
    if labelled_by is LabelledBy.DEMONSTRATION:
        return (True,)
    chosen, rejected = {w for w, _ in pairs}, {r for _, r in pairs}
    if chosen & rejected or len(chosen | rejected) < len(kept):
        raise Unusable("no label", "a response is neither labelled nor clearly chosen or rejected")
    return tuple(place in chosen for place in range(len(kept)))


def _margins(kept: tuple[Candidate, ...]) -> tuple[tuple[float, ...], ...]:
    margins = [c.margins for c in kept if c.margins is not None]
    if len(margins) < len(kept) or len({len(m) for m in margins}) > 1 or not margins[0]:
        raise Unusable("missing margins", "each response needs the same number of them")
    return tuple(margins)
