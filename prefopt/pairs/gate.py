"""When the next request may start: a rate limit, pauses that a server asks for, and an end for all that wait."""

from __future__ import annotations

import threading
import time


class Stopped(Exception):
    """The work was ended while a thread was waiting; whoever ended it says why."""


class Gate:
    """Lets requests of many threads through one after the other. Times are seconds of the monotonic clock."""

    def __init__(self, per_minute: float | None) -> None:
        """per_minute: requests that may start in a minute, evenly spaced; None for no limit."""
        self._spacing = 60 / per_minute if per_minute else 0.0
        self._next = self._held_until = 0.0
        self._lock = threading.Lock()
        self._end = threading.Event()

    def wait(self) -> None:
        """Come back when a request may start; it counts as started. Raises: Stopped."""
        while not self._end.is_set():
            with self._lock:
                now = time.monotonic()
                begin = max(self._next, self._held_until)
                if begin <= now:
                    self._next = now + self._spacing
                    return
            self._end.wait(begin - now)  # and look again: a pause may have begun meanwhile
        raise Stopped

    def hold(self, seconds: float) -> bool:
        """Let nothing start for so long. Whether that is later than what was held before by a second or more."""
        with self._lock:
            until = time.monotonic() + seconds
            is_later = until > self._held_until + 1
            self._held_until = max(self._held_until, until)
        return is_later

    def sleep(self, seconds: float) -> None:
        """Wait for one thread alone. Raises: Stopped."""
        if self._end.wait(seconds):
            raise Stopped

    def stop(self) -> None:
        """End all waiting, now and later."""
        self._end.set()
