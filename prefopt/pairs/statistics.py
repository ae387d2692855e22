"""The account of a data set that was built: counts and spreads, in one pass over what was made (stats.json).

Lengths are in words divided by white space. What is kept in memory is eight bytes a number.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, quantiles
from typing import Any

from prefopt.pairs.lengths import length_of
from prefopt.pairs.stages import LeftOut
from prefopt.records import Example


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Mean, least, quartiles and greatest of some numbers; None where there are none."""
    if not values:
        return None
    q1, median, q3 = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"mean": fmean(values), "min": min(values), "q1": q1, "median": median, "q3": q3, "max": max(values)}


class Statistics:
    """Told of every prompt with its scored candidates, of everything left out, and of every row, in any order."""

    def __init__(self) -> None:
        self._prompts_left_out: Counter[str] = Counter()
        self._candidates_left_out: Counter[str] = Counter()
        self._per_prompt: array[float] = array("d")
        self._scores: array[float] = array("d")
        self._duplicates = self._prompts_with_duplicates = self._ties = self._compared = self._all_equal = 0
        self._rows = 0
        self._words: dict[str, array[float]] = {}
        self._gaps: array[float] = array("d")
        self._longer = self._equally_long = 0

    def prompt(self, example: Example) -> None:
        """A prompt with all its candidates and their scores, whether or not anything of it is selected."""
        texts = [candidate.text for candidate in example.candidates]
        scores = [candidate.score for candidate in example.candidates if candidate.score is not None]
        self._per_prompt.append(len(texts))
        self._scores.extend(scores)
        self._duplicates += len(texts) - len(set(texts))
        self._prompts_with_duplicates += len(set(texts)) < len(texts)
        self._ties += sum(count * (count - 1) // 2 for count in Counter(scores).values())
        self._compared += len(scores) * (len(scores) - 1) // 2
        self._all_equal += len(scores) > 1 and len(set(scores)) == 1

    def left_out(self, one: LeftOut) -> None:
        """A prompt or a candidate that is not used."""
        (self._prompts_left_out if one.text is None else self._candidates_left_out)[one.reason] += 1

    def row(self, row: Mapping[str, Any]) -> None:
        """A row as it is written (`rows.py`)."""
        self._rows += 1
        if "chosen" in row:
            chosen, rejected = self._count("chosen", row["chosen"]), self._count("rejected", row["rejected"])
            self._longer += chosen > rejected
            self._equally_long += chosen == rejected
            self._gaps.append(row["score_chosen"] - row["score_rejected"])
        elif "responses" in row:
            for response in row["responses"]:
                self._count("responses", response)
            self._gaps.append(max(row["scores"]) - min(row["scores"]))
        else:
            self._count("completion", row["completion"])

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON. Shares are of 1; what there is nothing of is null."""
        num_candidates = int(sum(self._per_prompt))
        return {
            "prompts": {
                "with_candidates": len(self._per_prompt),
                "left_out": _by_count(self._prompts_left_out),
            },
            "candidates": {
                "count": num_candidates,
                "per_prompt": spread(self._per_prompt),
                "left_out": _by_count(self._candidates_left_out),
                "duplicates": self._duplicates,
                "prompts_with_duplicates": self._prompts_with_duplicates,
                "scores": spread(self._scores),
                "tied_share": _share(self._ties, self._compared),
                "prompts_all_tied": self._all_equal,
            },
            "rows": {
                "count": self._rows,
                "words": {column: spread(lengths) for column, lengths in self._words.items()},
                "score_gap": spread(self._gaps),
                **self._balance(),
            },
        }

    def _balance(self) -> dict[str, Any]:
        if "chosen" not in self._words:
            return {}
        unequal = self._rows - self._equally_long
        return {"longer_chosen_share": _share(self._longer, unequal), "equally_long": self._equally_long}

    def _count(self, column: str, text: str) -> int:
        length = length_of(text)
        self._words.setdefault(column, array("d")).append(length)
        return length


def _by_count(counts: Counter[str]) -> dict[str, int]:
    """The most frequent reason first."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
