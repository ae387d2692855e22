"""How long a text is, for people: no tokenizer counts the same as another."""

from __future__ import annotations

UNITS = ("words", "characters")


def length_of(text: str, unit: str = "words") -> int:
    """Words divided by white space, or characters without the white space at both ends."""
    return len(text.split()) if unit == "words" else len(text.strip())
