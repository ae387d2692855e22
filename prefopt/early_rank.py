"""A rank that is started while the data of its run are prepared: what it imports takes as long as they do.

It waits for a word before it reads anything of the run. Where none comes, because the run is refused or its command
ends, the rank ends without a word of its own. Standard library only.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

VARIABLE = "PREFOPT_EARLY"
"""Tells a rank that it is early, and the descriptor on which the word comes."""


class EarlyRank:
    """A started process that has not been told to go on yet."""

    def __init__(self, process: subprocess.Popen[bytes], word: int) -> None:
        self._process = process
        self._word = word
        self._told = False

    def told(self) -> subprocess.Popen[bytes] | None:
        """The process, which goes on now; None where it has ended already, and another has to be started."""
        try:
            os.write(self._word, b"\n")
        except OSError:  # nobody reads any more
            return None
        self._told = self._process.poll() is None
        return self._process if self._told else None

    def close(self) -> None:
        """End a process that was not told."""
        os.close(self._word)
        if not self._told:
            self._process.kill()
            self._process.wait()


@contextmanager
def early_rank(arguments: Sequence[str], added: Mapping[str, str]) -> Iterator[EarlyRank | None]:
    """The process of this command, started in a session of its own; None where it cannot be started."""
    reads, writes = os.pipe()
    environment = {**os.environ, **added, VARIABLE: str(reads)}
    try:
        process = subprocess.Popen(arguments, env=environment, start_new_session=True, pass_fds=[reads])
    except OSError:  # whoever starts it in earnest says why
        os.close(writes)
        yield None
        return
    finally:
        os.close(reads)
    rank = EarlyRank(process, writes)
    try:
        yield rank
    finally:
        rank.close()


def is_early() -> bool:
    """In a rank: whether it has to wait for a word."""
    return VARIABLE in os.environ


def wait_for_the_word() -> None:
    """In a rank that is early: wait; where the other end is closed without a word, the process ends here."""
    descriptor = int(os.environ.pop(VARIABLE))
    word = os.read(descriptor, 1)
    os.close(descriptor)
    if not word:
        os._exit(0)
