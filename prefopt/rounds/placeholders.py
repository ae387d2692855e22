"""Placeholders in the words of steps: {inputs.NAME}, {seed}, {round}, {STEP.model} and what is carried by its name.

A brace pair around one dotted name is a placeholder; `{r: 4}`, `{}` and `a{3}` are not, so that mappings of Hydra's
grammar and patterns stand beside them as they are. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\}")


@dataclass(frozen=True)
class Value:
    """What a placeholder stands for. text: or several words, of an input that is a list.

    made: paths in it that steps of the loop write.
    """

    text: str | tuple[str, ...]
    made: frozenset[str] = frozenset()


class Unfilled(Exception):
    """A placeholder that has no value here. name: as it stands in the braces. why: a sentence; empty if unknown."""

    def __init__(self, name: str, why: str = "", hint: str = "") -> None:
        super().__init__(name)
        self.name, self.why, self.hint = name, why, hint


def fill(text: str, scope: Mapping[str, Value], used: set[str]) -> Value:
    """`text` with every placeholder's value in its place. used: gets the names that were filled.

    Raises: Unfilled for a name that is not in `scope`, or that stands for several words.
    """
    made: set[str] = set()

    def put(found: re.Match[str]) -> str:
        value = _look_up(found[1], scope, used)
        if isinstance(value.text, tuple):
            raise Unfilled(found[1], "it is a list of words, and stands for them only where it is a word of its own")
        made.update(value.made)
        return value.text

    filled = PLACEHOLDER.sub(put, text)
    return Value(filled, frozenset(made))


def fill_word(word: str, scope: Mapping[str, Value], used: set[str]) -> list[Value]:
    """The words that a word of a step stands for: itself, filled, or those of the list that it names.

    Raises: Unfilled.
    """
    alone = PLACEHOLDER.fullmatch(word)
    if alone and isinstance(words := _look_up(alone[1], scope, used).text, tuple):
        return [fill(one, scope, used) for one in words]
    return [fill(word, scope, used)]


def _look_up(name: str, scope: Mapping[str, Value], used: set[str]) -> Value:
    if name not in scope:
        raise Unfilled(name)
    used.add(name)
    return scope[name]
