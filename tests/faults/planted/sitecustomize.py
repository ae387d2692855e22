"""Put before all other folders of PYTHONPATH: one rank kills itself before an operation on a checkpoint's files.

DIE_RANK, DIE_AT: which rank, and at the how many-th operation, counted over the whole start.
"""

import os
import signal
import sys

WATCHED = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")


def _plant(rank: str, at: int) -> None:
    done = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal done
        if event not in WATCHED or os.environ.get("RANK", "0") != rank:
            return
        path = arguments[0]
        if isinstance(path, int) or "/checkpoints" not in os.fsdecode(path):
            return
        done += 1
        if done == at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


if "prefopt.train" in sys.orig_argv and "DIE_AT" in os.environ:
    _plant(os.environ["DIE_RANK"], int(os.environ["DIE_AT"]))
