"""Numbers of answers as texts: no model, no judge. Each says what a text is like, none whether it is good.

A word stands between white space, with its letter case and punctuation; where a script is written without spaces
(Chinese characters, kana), every character is a word of its own.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from prefopt.pairs.score.repetition import repeated_share

GRAM = 4
"""Words of which a repetition consists, as in `sample.max_repetition`: fewer recur in good prose too."""
BLEU_ORDER = 4
BLEU_EPSILON = 0.1
"""Matches that an order without any is given (method 1 of Chen and Cherry 2014)."""

_OPENINGS = Path(__file__).with_name("refusal_openings.txt")
# Han with its extensions and compatibility forms, 々 and 〇, hiragana and katakana.
_UNSPACED = "[々〇\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_WORD = re.compile(rf"{_UNSPACED}|(?:(?!{_UNSPACED})\S)+")
_BEFORE_WORDS = " \t\r\n\"'*_#>“”‘’「」《》"


def words_of(text: str) -> list[str]:
    """The words of a text; without Chinese characters and kana those of `text.split()`."""
    return _WORD.findall(text)


def repetition(text: str) -> float:
    """Share of the word 4-grams that have occurred before in the text: 0 none, towards 1 a loop."""
    return repeated_share(words_of(text), GRAM)


def is_empty(text: str) -> bool:
    """Whether there is nothing but white space."""
    return not text.strip()


def is_refusal(text: str) -> bool:
    """Whether the text begins as refusals do, by the list in refusal_openings.txt (English and Chinese).

    A lower bound: refusals in other words, in other languages or behind a first sentence are not seen, and "I can't do
    that without ..." followed by an answer is counted. For trends between models, not as a measure of safety.
    """
    start = text[:200].replace("’", "'").replace("‘", "'").lstrip(_BEFORE_WORDS).lower()
    return start.startswith(refusal_openings())


@cache
def refusal_openings() -> tuple[str, ...]:
    """The list."""
    lines = _OPENINGS.read_text(encoding="utf-8").split("\n")
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Distinct word n-grams over all word n-grams of all texts together (Li et al. 2016, arXiv 1510.03055).

    It falls with the amount of text, so only sets of like sizes can be compared. None where there is no n-gram.
    """
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        grams = _grams(words_of(text), n)
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else None


def self_bleu(texts: Sequence[str]) -> list[float]:
    """BLEU-4 of each text with all others as its references (Zhu et al. 2018, arXiv 1802.01886): 1 is all the same.

    BLEU = min(1, exp(1 - r / c)) * exp(mean over n = 1 ... 4 of log p_n), as Papineni et al. 2002: p_n is the share of
    the text's n-grams that others have, each counted at most as often as it occurs in one of them; c the text's length
    in words, r the nearest length of another, the shorter of two. Smoothing: an order without a match counts 0.1
    matches, an order without n-grams 0.1 of 1; without any match of a word BLEU is 0 (which is NLTK's sentence_bleu
    with method1). Grows with the number of texts.

    Raises: ValueError for fewer than 2 texts or one without words.
    """
    words = [words_of(text) for text in texts]
    if len(words) < 2 or not all(words):
        raise ValueError("self-BLEU needs two texts or more, none of them empty")
    lengths = sorted(len(row) for row in words)
    logs = [0.0] * len(words)
    matched = [True] * len(words)
    for order in range(1, BLEU_ORDER + 1):
        counts = [Counter(_grams(row, order)) for row in words]
        most = _two_highest(counts)
        for place, own in enumerate(counts):
            hits = 0
            for gram, count in own.items():
                holder, highest, second = most[gram]
                hits += min(count, second if holder == place else highest)
            if order == 1 and not hits:
                matched[place] = False
            logs[place] += math.log((hits or BLEU_EPSILON) / max(1, own.total())) / BLEU_ORDER
    return [
        math.exp(log + min(0.0, 1 - _nearest_other(lengths, len(row)) / len(row))) if is_matched else 0.0
        for log, row, is_matched in zip(logs, words, matched)
    ]


def same_as_others(texts: Sequence[str]) -> list[int]:
    """Of each text, how many others are the same but for white space at the ends."""
    counts = Counter(text.strip() for text in texts)
    return [counts[text.strip()] - 1 for text in texts]


def most_common_share(texts: Sequence[str]) -> float:
    """Share of the text that occurs most often: 1 for a model that always says the same, 1 / n where none recurs."""
    return (max(same_as_others(texts)) + 1) / len(texts)


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def _two_highest(counts: Sequence[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], tuple[int, int, int]]:
    """Of each n-gram: who has most of it, how many, and the most that another one has."""
    most: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for place, own in enumerate(counts):
        for gram, count in own.items():
            holder, highest, second = most.get(gram, (-1, 0, 0))
            most[gram] = (place, count, highest) if count > highest else (holder, highest, max(second, count))
    return most


def _nearest_other(lengths: Sequence[int], own: int) -> int:
    """The length nearest to one of `lengths`, which are sorted, itself left out; the shorter of two."""
    place = bisect_left(lengths, own)
    others = [*lengths[max(0, place - 1) : place], *lengths[place + 1 : place + 2]]
    return min(others, key=lambda length: (abs(length - own), length))
