"""What a user did wrong, or what went wrong for the user: printed without a traceback.

Exit codes: 2 misuse (a key, a file, a row), 1 failure (disk, network, a number that is not finite), 128 and its number
for a signal that came before anything could be saved (130: Ctrl-C). Anything that is not a `UserError` is a bug of ours
and keeps its traceback.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

MISUSE = 2
FAILURE = 1


class UserError(Exception):
    """One sentence that says what is wrong, where, and what to do about it.

    message: what is wrong and where (file, line, key).
    hint: what to do; printed on a line of its own.
    exit_code: 2 for misuse, 1 for a failure of the surroundings.
    """

    def __init__(self, message: str, hint: str = "", exit_code: int = MISUSE) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class RunError(UserError):
    """A failure while running (disk full, non-finite loss, no network): exit code 1."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, FAILURE)


def stopped_unsaved(number: int) -> UserError:
    """A signal that came when nothing could be saved; the exit code is the shell's, 128 and the signal's number."""
    name = signal.Signals(number).name
    return UserError(
        f"stopped by {name} at a moment when nothing could be saved",
        "the same command goes on from the last checkpoint, or starts where there is none",
        128 + number,
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "did you mean 'beta'?" for the nearest known words, or "known: ..." where none is near."""
    words = sorted(set(known))
    near = get_close_matches(word, words, n=3, cutoff=0.6)
    if near:
        nearness = {n: SequenceMatcher(None, n, word).ratio() for n in near}
        near = [n for n in near if nearness[n] > nearness[near[0]] - 0.2]
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "known: " + ", ".join(words) if words else ""
