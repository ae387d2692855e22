"""What was selected as rows that `prefopt train` reads, each with where it came from.

| writes | columns |
|---|---|
| pairs | prompt, chosen, rejected, score_chosen, score_rejected; of each other objective NAME_chosen, NAME_rejected |
| ranked | prompt, responses, scores, in the order in which they were kept; of each other objective NAME, a list |
| sft | prompt, completion |

prompt is text, or messages where the prompt is a conversation; y_ref is there where the prompt has a target. The column
`provenance` is for people and reports, and not trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefopt.pairs.stages import WINS, Select, Selected, wins_of
from prefopt.records import Candidate, Example

PROVENANCE = "provenance"

# Columns that mean something else to the readers of rows.
_TAKEN = frozenset(
    {"prompt", "chosen", "rejected", "responses", "candidates", "completions", "completion", "response"}
    | {"score", "scores", "rank", "ranks", "label", "messages", "conversations", "y_ref", "margin", PROVENANCE}
)


def margin_names(margins: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of other objectives: those of the stages that score them, numbered from 2 where one comes again."""
    stages = [str(margin["name"]) for margin in margins]
    before = [stages[:place].count(name) for place, name in enumerate(stages)]
    return tuple(f"{name}_{times + 1}" if times else name for name, times in zip(stages, before, strict=True))


@dataclass(frozen=True)
class Rows:
    """Writes what a selector took.

    select: the selector. settings: its name and settings, for the provenance. seed: of the command. margins: the names
    of the objectives whose scores the candidates carry as margins, in their order; without names, margins that came
    with the candidates' file are kept in the provenance alone.
    """

    select: Select
    settings: Mapping[str, Any]
    seed: int
    margins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.margins)) < len(self.margins) or _TAKEN & set(self.margins):
            raise ValueError(f"margins must have names of their own, not {', '.join(self.margins)}")

    def __call__(
        self, example: Example, selected: Selected, details: Sequence[Mapping[str, Any]] = ()
    ) -> list[dict[str, Any]]:
        """The rows of a prompt; none where nothing was selected. details: of each candidate, as `Judged` has them."""
        origin = self._provenance(example, details)
        if self.select.writes == "pairs":
            return [self._pair(example, *pair, origin) for pair in selected.pairs]
        if self.select.writes == "ranked":
            return [self._ranked(example, selected.kept, origin)] if selected.kept else []
        return [self._imitated(example, place, origin) for place in selected.kept]

    def _pair(self, example: Example, chosen: int, rejected: int, origin: dict[str, Any]) -> dict[str, Any]:
        both = {"chosen": example.candidates[chosen], "rejected": example.candidates[rejected]}
        scores = self._scores(example.candidates, chosen, rejected)
        return {
            "prompt": _prompt(example),
            **{side: candidate.text for side, candidate in both.items()},
            **{f"score_{side}": score for side, score in zip(both, scores, strict=True)},
            **{
                f"{name}_{side}": margin
                for side, candidate in both.items()
                for name, margin in self._margins(candidate).items()
            },
            **_target(example),
            PROVENANCE: {**origin, "chosen": chosen, "rejected": rejected},
        }

    def _scores(self, candidates: Sequence[Candidate], chosen: int, rejected: int) -> tuple[float | None, float | None]:
        """What chosen and rejected are worth against each other: training refuses scores that contradict the pair, as
        mean scores may where a pairwise judge decided between these two.
        """
        wins = wins_of(candidates) if self.select.decided_by == "wins" else None
        if wins is None:
            return candidates[chosen].score, candidates[rejected].score
        return wins[chosen][rejected], 1.0 - wins[chosen][rejected]

    def _ranked(self, example: Example, kept: Sequence[int], origin: dict[str, Any]) -> dict[str, Any]:
        candidates = [example.candidates[place] for place in kept]
        margins = [self._margins(candidate) for candidate in candidates]
        return {
            "prompt": _prompt(example),
            "responses": [candidate.text for candidate in candidates],
            "scores": [candidate.score for candidate in candidates],
            **{name: [of_one[name] for of_one in margins] for name in self.margins},
            **_target(example),
            PROVENANCE: {**origin, "kept": list(kept)},
        }

    def _imitated(self, example: Example, place: int, origin: dict[str, Any]) -> dict[str, Any]:
        # No column `score`: training would take one that is not 1 for the label of an undesirable response.
        return {
            "prompt": _prompt(example),
            "completion": example.candidates[place].text,
            PROVENANCE: {**origin, "kept": [place]},
        }

    def _provenance(self, example: Example, details: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        line = example.id.rpartition(":")[2]
        of_each = details or [{}] * len(example.candidates)
        return {
            "id": example.id,
            "line": int(line) if line.isdecimal() else None,
            "candidates": [self._origin(c, d) for c, d in zip(example.candidates, of_each, strict=True)],
            "select": dict(self.settings),
            "seed": self.seed,
        }

    def _origin(self, candidate: Candidate, details: Mapping[str, Any]) -> dict[str, Any]:
        """Where a candidate came from. What a pairwise judge said of every two stays in candidates.jsonl."""
        # null and not {}: Parquet cannot hold an object without keys.
        return {
            "sha256": hashlib.sha256(candidate.text.encode("utf-8", "surrogatepass")).hexdigest(),
            "score": candidate.score,
            "margins": list(candidate.margins or ()) or None,
            "details": dict(details) or None,
            "source": {key: value for key, value in (candidate.source or {}).items() if key != WINS} or None,
        }

    def _margins(self, candidate: Candidate) -> dict[str, float]:
        """A candidate's scores of the named objectives."""
        return dict(zip(self.margins, candidate.margins or (), strict=True)) if self.margins else {}


def _prompt(example: Example) -> str | list[dict[str, str]]:
    if not example.is_chat:
        return example.prompt[0].content
    return [{"role": message.role, "content": message.content} for message in example.prompt]


def _target(example: Example) -> dict[str, str]:
    return {} if example.target is None else {"y_ref": example.target}
