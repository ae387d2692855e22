"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def die_with_parent() -> None:
    """End at once when the process that started this one is killed.

    Launcher and ranks have sessions of their own (ours, and those of torch's elastic agent), so `kill -9` of the
    command would else leave them training unseen, holding the run folder against the next start. Linux only; elsewhere
    the lock on the run folder still keeps a second start out.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
