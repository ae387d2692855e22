"""python -m prefopt.accelerate_launch RUN_DIR FLAGS: `accelerate launch`, but a sentence instead of its traceback.

torch's launcher ends every failure and every signal in a traceback of its own, below which the one sentence of the rank
is lost. Where a rank left exit.json, that is the reason; where it could not, exit.json is written here, with the rank
that ended first and its last lines.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from prefopt.rank_logs import Death, write_death

FAILED = 1
"""What `accelerate launch` gives for everything; the rank's own code is in exit.json."""


def main(run_dir: Path, flags: list[str]) -> int:
    """Launch, and wait for the ranks; 0 or 1."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing import api
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # Each of torch's modules has a level of its own; what they log says the same once more.
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("torch.distributed.elastic") and isinstance(logger, logging.Logger):
            logger.setLevel(logging.CRITICAL)
    vars(api)["_terminate_process_handler"] = _once(api._terminate_process_handler)
    try:
        launch_command(launch_command_parser().parse_args(flags))
    except api.SignalException:  # whoever sent the signal knows, and the ranks have been told
        return FAILED
    except ChildFailedError as error:
        deaths = {rank: Death(failure.exitcode, failure.timestamp) for rank, failure in error.failures.items()}
        write_death(run_dir, deaths)
        return FAILED
    return 0


def _once(handler: Callable[[int, FrameType | None], None]) -> Callable[[int, FrameType | None], None]:
    """Torch's handler, for the first signal and for Ctrl-C.

    SLURM tells every process of a step, the command tells the launcher, and some clusters repeat themselves. Torch
    takes each signal for a new order to stop, and at the third leaves ranks behind that are still saving.
    """
    told: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if not told or number == signal.SIGINT:
            told.append(number)
            handler(number, frame)

    return handle


if __name__ == "__main__":
    from prefopt.lifetime import die_with_parent

    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until torch handles it, Ctrl-C ends this without a traceback
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
