"""Markdown in an answer, counted as Arena-Hard's `metadata` has it; its style control is a regression on these.

What stands between fences of three backticks is left out first, and with it, as that tool does it, the same words
wherever else they stand. On its published answers of o3-mini (v2.0) all 750 rows have these counts.
"""

from __future__ import annotations

import re

_FENCED = re.compile(r"```([^`]*)```")
_HEADER = re.compile(r"^(#{1,6})\s", re.MULTILINE)
_ORDERED = re.compile(r"^\s*\d+\.\s", re.MULTILINE)
_UNORDERED = re.compile(r"^\s*[-*+]\s", re.MULTILINE)
_STARS = re.compile(r"\*\*[^*\n]+\*\*")
_LOW_LINES = re.compile(r"__[^_\n]+__")


def markdown_counts(text: str) -> dict[str, dict[str, int]]:
    """header_count by level h1 to h6, list_count of ordered and unordered items, bold_count by its marks."""
    for inside in _FENCED.findall(text):
        text = text.replace(inside, "")
    levels = [len(marks) for marks in _HEADER.findall(text)]
    return {
        "header_count": {f"h{level}": levels.count(level) for level in range(1, 7)},
        "list_count": {"ordered": len(_ORDERED.findall(text)), "unordered": len(_UNORDERED.findall(text))},
        "bold_count": {"**": len(_STARS.findall(text)), "__": len(_LOW_LINES.findall(text))},
    }
