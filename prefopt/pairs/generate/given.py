"""No new candidates: the responses that the file of the prompts holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from prefopt.pairs.stages import Generated, LeftOut, Place
from prefopt.records import Example

__all__ = ["Given"]


@dataclass(frozen=True)
class Given:
    """The responses of the file, with their scores, are the candidates. Prompts without any are left out."""

    needs_policy: ClassVar[bool] = False
    works_on_responses: ClassVar[bool] = True

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Generated]]:
        """Nothing is loaded."""
        return lambda examples: [_given(example) for example in examples]


def _given(example: Example) -> Generated:
    if example.candidates:
        return Generated((example,))
    return Generated((), (LeftOut(example.id, "no given response", "the row holds a prompt alone"),))
