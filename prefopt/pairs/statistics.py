"""The account of a data set that was built: counts and spreads, in one pass over what was made (stats.json).

Lengths are in words divided by white space. What is kept in memory is eight bytes a number.

The interval of the mean score is a 95 % percentile bootstrap over prompts, whose candidates are drawn together (Efron
and Tibshirani 1993, chapter 13): answers to one prompt say little of another one.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, quantiles
from typing import Any

from prefopt.pairs.lengths import length_of
from prefopt.pairs.stages import CUT, FINISH, STOPPED, LeftOut
from prefopt.records import Example

_RESAMPLES = 1000


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Mean, least, quartiles and greatest of some numbers; None where there are none."""
    if not values:
        return None
    q1, median, q3 = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"mean": fmean(values), "min": min(values), "q1": q1, "median": median, "q3": q3, "max": max(values)}


def mean_interval(sums: Sequence[float], counts: Sequence[float]) -> tuple[float, float] | None:
    """Bounds of sum(sums) / sum(counts) over groups that are drawn with replacement; None of fewer than two groups.

    sums, counts: of each group. The same groups give the same bounds.
    """
    if len(sums) < 2:
        return None
    import numpy as np

    rng = np.random.default_rng(0)
    found = np.empty(_RESAMPLES)
    values, weights = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    for number in range(_RESAMPLES):  # one at a time: a resample of a million prompts takes eight megabytes
        drawn = rng.integers(0, len(values), len(values))
        found[number] = values[drawn].sum() / weights[drawn].sum()
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)


def cut_sentence(numbers: Mapping[str, Any]) -> str:
    """What became of answers that were cut and kept; "" where none was. numbers: as `Statistics.as_dict` gives."""
    cut = numbers["candidates"].get("cut")  # a folder of an older version did not count them
    if not cut or not cut["count"]:
        return ""
    why = " (generate.unfinished=keep)" if cut["count"] > cut["by_server"] else ""
    return (
        f"{cut['count']} of {cut['of']} candidates were cut at generate.max_new_tokens and are closed as if whole{why}"
    )


class Statistics:
    """Told of every prompt with its scored candidates, of everything left out, and of every row, in any order."""

    def __init__(self) -> None:
        self._prompts_left_out: Counter[str] = Counter()
        self._candidates_left_out: Counter[str] = Counter()
        self._per_prompt: array[float] = array("d")
        self._scores: array[float] = array("d")
        self._score_sums: array[float] = array("d")  # of each prompt, and how many its scores are
        self._score_counts: array[float] = array("d")
        self._cut = self._cut_by_server = self._told_whether_cut = 0
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
        if scores:
            self._score_sums.append(sum(scores))
            self._score_counts.append(len(scores))
        for source in filter(None, (candidate.source for candidate in example.candidates)):
            by_server = source.get(FINISH) == CUT
            self._told_whether_cut += STOPPED in source or FINISH in source
            self._cut += by_server or source.get(STOPPED) is False
            self._cut_by_server += by_server
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
                "mean_score_95": mean_interval(self._score_sums, self._score_counts),
                "cut": {"count": self._cut, "by_server": self._cut_by_server, "of": self._told_whether_cut},
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
