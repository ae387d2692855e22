"""Work that waits for others, many pieces at a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from prefopt.pairs.gate import Stopped

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")

_LAST_WORDS = 2.0  # seconds; what is about to be answered has been paid for


def each(do: Callable[[Item], Result], items: Sequence[Item], threads: int, stop: Callable[[], None]) -> list[Result]:
    """`do` of every item, in their order; equal items are done once.

    threads: how many are worked on at once. stop: called when one has failed, to end what the others wait for.

    Raises: what `do` raises first.
    """
    todo = deque(dict.fromkeys(items))
    results: dict[Item, Result] = {}
    failures: list[BaseException] = []

    def work() -> None:
        while not failures:
            try:
                item = todo.popleft()
            except IndexError:
                return
            try:
                results[item] = do(item)
            except Stopped:
                return
            except BaseException as error:
                failures.append(error)
                stop()

    # Daemons: Ctrl-C must not wait for a judge that thinks for minutes.
    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, len(todo)))]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            while worker.is_alive() and not failures:
                worker.join(0.2)
    except BaseException:
        stop()
        raise
    if failures:
        deadline = time.monotonic() + _LAST_WORDS
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        raise failures[0]
    return [results[item] for item in items]
