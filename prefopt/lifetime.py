"""How the processes of a run end: with the one that started them, and without an abort on the way out."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from prefopt.disk import disk_failure
from prefopt.errors import UserError
from prefopt.masking import masked

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_LIBC = ctypes.CDLL(None)  # loaded here: `die_with_parent` may be called between a fork and an exec


def die_with_parent(parent: int | None = None) -> None:
    """End at once when the process that started this one is killed. parent: its id, where it may be dead already.

    Launcher and ranks have sessions of their own (ours, and those of torch's elastic agent), so `kill -9` of the
    command would else leave them training unseen, holding the run folder against the next start. Linux only; elsewhere
    the lock on the run folder still keeps a second start out.
    """
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def in_a_sentence(work: Callable[[], None]) -> int:
    """Do the work of a process; its exit code. What is a user's fault, or a disk's, is said in one sentence on stderr;
    anything else keeps its traceback."""
    try:
        work()
    except UserError as error:
        print(f"prefopt: {masked(str(error))}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        failure = disk_failure(error)
        if failure is None:
            raise
        print(f"prefopt: {failure}", file=sys.stderr)
        return failure.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def leave(code: int) -> NoReturn:
    """End this process now, everything being written and its process group closed.

    Threads of the communication libraries that outlive the process group have been seen to abort a rank while the
    interpreter goes down (ZeRO-3 on two CPU processes, torch 2.13, twice in some hundred runs).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
