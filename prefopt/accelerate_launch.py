"""python -m prefopt.accelerate_launch RUN_DIR FLAGS: `accelerate launch`, but no traceback where a rank said why.

torch's launcher ends every failure and every signal in a traceback of its own, below which the one sentence of the rank
is lost. Where a rank left exit.json, that is the reason and the traceback is dropped; else it is shown in full.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

FAILED = 1
"""What `accelerate launch` gives for everything; the rank's own code is in exit.json."""


def main(run_dir: Path, flags: list[str]) -> int:
    """Launch, and wait for the ranks; 0 or 1."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # Each of torch's modules has a level of its own; what they log says the same once more.
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("torch.distributed.elastic") and isinstance(logger, logging.Logger):
            logger.setLevel(logging.CRITICAL)
    try:
        launch_command(launch_command_parser().parse_args(flags))
    except (ChildFailedError, SignalException):
        if not (run_dir / "exit.json").exists():
            raise
        return FAILED
    return 0


if __name__ == "__main__":
    from prefopt.lifetime import die_with_parent

    die_with_parent()
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
