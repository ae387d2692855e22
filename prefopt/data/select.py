"""Which responses of an example a method uses, how they pair, and which one is imitated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from prefopt.data.rows import Unusable
from prefopt.records import Candidate, Example

# The needs that decide which responses are kept; the others (reference, prompt_logps ...) ask nothing of the data.
DATA_NEEDS = frozenset({"pairs", "ranking", "labels", "margins"})


@dataclass(frozen=True)
class Selected:
    """The responses kept of an example, in the order of the file.

    pairs: (chosen, rejected) as places in `candidates`. best: the place an NLL imitates. num_identical: pairs that were
    dropped because both responses are the same text.
    """

    candidates: tuple[Candidate, ...]
    pairs: tuple[tuple[int, int], ...]
    best: int
    labels: tuple[bool, ...] | None = None
    margins: tuple[tuple[float, ...], ...] | None = None
    num_identical: int = 0


def select(example: Example, needs: frozenset[str], pairs: str) -> Selected:
    """What a method with these needs learns from `example`.

    needs: the loss's. pairs: "best_vs_worst" by score, or "all" pairs whose scores differ.
    Without pairs, ranking or labels among the needs only the best response is kept: the method imitates.
    With pairs alone, responses that are in no pair are not kept.

    Raises: Unusable where the example lacks what is needed, or a response it would use is empty.
    """
    candidates = example.candidates
    scores = _scores(candidates)
    best = _best(candidates, scores)
    if not needs & {"pairs", "ranking", "labels"}:
        if candidates[best].label is False:
            raise Unusable("undesirable response for imitation", "its label is false")
        return _finish(example, [best], [], best, needs)
    wanted = _pairs(scores, pairs)
    found = [(w, r) for w, r in wanted if candidates[w].text != candidates[r].text]
    paired = "pairs" in needs or ("labels" in needs and not _labelled(candidates))
    if paired and not found:
        if wanted:
            raise Unusable("chosen equals rejected", f"the same {len(candidates[wanted[0][0]].text)} characters")
        why = "one response" if len(candidates) == 1 else "all scores are equal" if scores else "no scores"
        raise Unusable("no pair", why)
    if "ranking" in needs and not wanted:
        raise Unusable("no ranking", "fewer than two different scores")
    keep = set(range(len(candidates)))
    if "ranking" not in needs and paired:
        keep = {place for pair in found for place in pair} | {best}
    return _finish(example, sorted(keep), found, best, needs, len(wanted) - len(found))


def _scores(candidates: Sequence[Candidate]) -> list[float]:
    """Every candidate's score, or none at all."""
    scores = [c.score for c in candidates if c.score is not None]
    if scores and len(scores) < len(candidates):
        raise Unusable("missing score", f"{len(scores)} of {len(candidates)} responses have one")
    return scores


def _best(candidates: Sequence[Candidate], scores: list[float]) -> int:
    """The highest score, the first on ties; without scores the first that is not labelled undesirable."""
    if scores:
        return scores.index(max(scores))
    return next((place for place, c in enumerate(candidates) if c.label is not False), 0)


def _pairs(scores: list[float], which: str) -> list[tuple[int, int]]:
    """(higher, lower) places by score; equal scores make no pair."""
    places = range(len(scores))
    if which == "all":
        return [(w, r) for w, r in product(places, places) if scores[w] > scores[r]]
    if not scores or max(scores) == min(scores):
        return []
    return [(scores.index(max(scores)), scores.index(min(scores)))]


def _labelled(candidates: Sequence[Candidate]) -> bool:
    return all(c.label is not None for c in candidates)


def _finish(
    example: Example,
    keep: list[int],
    pairs: list[tuple[int, int]],
    best: int,
    needs: frozenset[str],
    identical: int = 0,
) -> Selected:
    candidates = tuple(example.candidates[place] for place in keep)
    for old, candidate in zip(keep, candidates):
        if not candidate.text.strip():
            raise Unusable("empty response", f"response {old + 1} of {len(example.candidates)}")
    new = {old: place for place, old in enumerate(keep)}
    moved = tuple((new[w], new[r]) for w, r in pairs)
    labels = _labels(candidates, moved) if "labels" in needs else None
    margins = _margins(candidates) if "margins" in needs else None
    return Selected(candidates, moved, new[best], labels, margins, identical)


def _labels(candidates: tuple[Candidate, ...], pairs: tuple[tuple[int, int], ...]) -> tuple[bool, ...]:
    """The labels of the file; without them chosen responses are desirable and rejected ones are not."""
    if _labelled(candidates):
        return tuple(bool(c.label) for c in candidates)
    chosen, rejected = {w for w, _ in pairs}, {r for _, r in pairs}
    both = chosen & rejected
    if both or len(chosen | rejected) < len(candidates):
        raise Unusable("no label", "a response is neither labelled nor clearly chosen or rejected")
    return tuple(place in chosen for place in range(len(candidates)))


def _margins(candidates: tuple[Candidate, ...]) -> tuple[tuple[float, ...], ...]:
    margins = [c.margins for c in candidates if c.margins is not None]
    if len(margins) < len(candidates) or len({len(m) for m in margins}) > 1 or not margins[0]:
        raise Unusable("missing margins", "each response needs the same number of them")
    return tuple(margins)
