"""The format `judged`: two responses side by side and a verdict on them (LLMBar, PandaLM, AlpacaEval's annotations)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from prefopt.data.format_alpaca import alpaca_prompt
from prefopt.data.format_pairs import Columns, Parsed, Values
from prefopt.data.messages import as_prompt
from prefopt.data.rows import Unusable, as_number, present, text
from prefopt.records import Candidate, Message

OUTPUTS = (("output_1", "output_2"), ("response1", "response2"), ("response_1", "response_2"))
"""Columns of the two responses, in the files of different judges."""
VERDICTS = ("label", "preference")
"""Columns of one verdict: 1 or 2, which is better, 0 or 1.5 for a tie; a preference may lie between (AlpacaEval)."""
PROMPTS = ("instruction", "input", "prompt")
_ANNOTATOR = re.compile(r"annotator\d+")


def is_judged(seen: Mapping[str, Any]) -> bool:
    """Whether a file with these columns has two responses, a verdict, and something that was asked."""
    judged = any(name in seen for name in VERDICTS) or any(_annotators(seen))
    return judged and any(set(pair) <= seen.keys() for pair in OUTPUTS) and any(name in seen for name in PROMPTS)


def read_judged(row: Values, columns: Columns) -> Parsed:
    """instruction (and input), input alone, or prompt; two responses; a verdict, or those of several annotators.

    The better response is chosen; of annotator1, annotator2, ... what most of them say. A tie leaves the row without a
    pair. Raises: Unusable where a column does not say what it should.
    """
    first, second = next(pair for pair in OUTPUTS if columns.issuperset(pair))
    verdict = _verdict(row, columns)
    one, two = (Candidate(text(row, name), score=0.0) for name in (first, second))
    if verdict == 0:
        candidates = (one, two)
    else:
        better, worse = (one, two) if verdict == 1 else (two, one)
        candidates = (Candidate(better.text, score=1.0), worse)
    if "instruction" in columns:
        return Parsed(alpaca_prompt(row), candidates, True)
    if "input" in columns:
        return Parsed((Message("user", text(row, "input")),), candidates, True)
    prompt, is_chat = as_prompt(present(row, "prompt"), "prompt")
    return Parsed(prompt, candidates, is_chat)


def _annotators(columns: Iterable[str]) -> list[str]:
    return sorted(name for name in columns if _ANNOTATOR.fullmatch(name))


def _verdict(row: Values, columns: Columns) -> int:
    """1 or 2: which response is better; 0: neither."""
    for name in VERDICTS:
        if name in columns:
            return _side(as_number(present(row, name), name), name)
    names = _annotators(columns)
    said = Counter(_side(as_number(present(row, name), name), name) for name in names)
    (most, count), *others = said.most_common()
    return 0 if others and others[0][1] == count else most


def _side(number: float, name: str) -> int:
    if number == 0 or number == 1.5:
        return 0
    if not 1 <= number <= 2:
        raise Unusable(f"{name} is no verdict", f"{number:g} is none of 0, 1 and 2, and not between 1 and 2")
    return 1 if number < 1.5 else 2
