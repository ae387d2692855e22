"""A function of the user's own as the judge."""

from __future__ import annotations

import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

from prefopt.errors import UserError, did_you_mean
from prefopt.fill import SettingsError
from prefopt.pairs.prompt_text import last_question
from prefopt.pairs.stages import Asked, Judged, Place
from prefopt.records import Example

__all__ = ["Python"]

NO_QUESTION = "the prompt has no user turn"


@dataclass(frozen=True)
class Python:
    """score = f(prompt, response), with a function that you wrote. It runs that function's code, in this process.

    prompt: the content of the last user turn, or a plain prompt. response: the candidate's text. What comes back must
    be a finite number (True and False are 1 and 0). It should depend on its two arguments alone; then a row gets the
    same score whenever it is scored.

    function: "package.module:function", from what is installed or from the working directory (what is installed comes
        first). An exact judge to try it with, of the demo's data: prefopt.demo.manners:utility.
    """

    function: str = ""

    uses: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", self.function):
            raise ValueError(f"function must be package.module:function, not {self.function!r}")

    def check(self, asked: Asked) -> None:
        """Whether the module can be found; it is not run here. Raises: SettingsError where it is not there."""
        module = self.function.split(":")[0]
        _look_here_too()
        try:
            found = find_spec(module)
        except ModuleNotFoundError as error:
            raise _no_module(error.name or module) from None
        except Exception:  # of a package that fails: `open` says it with the line
            return
        if found is None:
            raise _no_module(module)

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Judged]]:
        """The function that judges. Raises: UserError where there is no such function, or its module fails."""
        function = _import(self.function)
        return lambda examples: [self._judged(function, example) for example in examples]

    def _judged(self, function: Callable[[str, str], Any], example: Example) -> Judged:
        question = last_question(example)
        count = len(example.candidates)
        if question is None:
            return Judged((None,) * count, (NO_QUESTION,) * count)
        scores = [self._score(function, example, question, i) for i in range(count)]
        return Judged(tuple(scores), (None,) * count)

    def _score(self, function: Callable[[str, str], Any], example: Example, question: str, number: int) -> float:
        where = f"{example.id}, candidate {number + 1}: {self.function}"
        try:
            value = function(question, example.candidates[number].text)
        except Exception as error:
            raise UserError(f"{where} failed: {_brief(error)}", "correct the function") from error
        try:
            score = math.nan if isinstance(value, str | bytes) else float(value)
        except (TypeError, ValueError, OverflowError):
            score = math.nan
        if not math.isfinite(score):
            raise UserError(f"{where} gave {value!r:.60}, and a score is a finite number", "correct the function")
        return score


def _import(function: str) -> Callable[[str, str], Any]:
    module_name, name = function.split(":")
    _look_here_too()
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise SettingsError("function", f"{module_name} cannot be imported: {_brief(error)}") from error
        raise _no_module(error.name) from None
    except Exception as error:
        raise SettingsError("function", f"{module_name} cannot be imported: {_brief(error)}") from error
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise SettingsError("function", f"{module_name} has no function {name!r}", did_you_mean(name, known))
    return found


def _look_here_too() -> None:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _no_module(name: str) -> SettingsError:
    return SettingsError(
        "function",
        f"there is no module {name!r}, neither installed nor in {os.getcwd()}",
        "give the command in the folder that holds it, or correct the name",
    )


def _brief(error: Exception) -> str:
    """An exception and the line of the user's code that raised it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {error}{place}" if str(error) else f"{type(error).__name__}{place}"
