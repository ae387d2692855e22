"""A chat template is a program from whoever made the tokenizer: what it may cost, and what it may not reach for.

transformers runs it in jinja's sandbox, from which no code of the machine can be reached; a template that tries is
refused here by name. What the sandbox does not bound is time and size.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from prefopt.errors import UserError

SECONDS = 10.0
"""Of this process's own computing, for the dialogues of one row; a row of ten megabytes takes a hundredth of it."""

_SPARE_CHARACTERS = 1_000_000
_TIMES_AS_LONG = 20
_HINT = "set data.chat_template to another one"


class TemplateLimitError(UserError):
    """A template that no row can be rendered by: it does not end, writes without measure, or tries to get out."""


@contextmanager
def bounded(where: str) -> Iterator[None]:
    """What is done meanwhile is ended after `SECONDS` of computing, where the main thread does it.

    A single operation in C (a text times a large number) is ended by the memory there is and not by this.

    Raises: TemplateLimitError then. where: the template or the row, for the message.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expired(_number: int, _frame: FrameType | None) -> None:
        message = f"{where}: the chat template has not come to an end after {SECONDS:g} seconds of computing"
        raise TemplateLimitError(message, _HINT)

    before = signal.signal(signal.SIGVTALRM, expired)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def check_size(where: str, rendered: str, said: Sequence[str]) -> None:
    """Refuse a text that is out of proportion to what the turns say: `said`.

    Raises: TemplateLimitError.
    """
    length = sum(map(len, said))
    if len(rendered) > _SPARE_CHARACTERS + _TIMES_AS_LONG * length:
        message = f"{where}: the chat template makes {len(rendered)} characters of a dialogue of {length}"
        raise TemplateLimitError(message, _HINT)


def is_escape(error: Exception) -> bool:
    """Whether the sandbox stopped the template."""
    from jinja2.exceptions import SecurityError

    return isinstance(error, SecurityError)


def refused(where: str, error: Exception) -> TemplateLimitError:
    """What to say of a template that the sandbox stopped."""
    message = f"{where}: the chat template reaches for what no template needs, and was stopped ({error})"
    return TemplateLimitError(message, f"do not use what it came with; {_HINT}")
