"""python -m prefopt.train RUN_DIR: one rank. Reads the run folder and nothing else."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path

from prefopt.disk import disk_failure
from prefopt.early_rank import is_early, wait_for_the_word
from prefopt.errors import RunError, UserError
from prefopt.masking import mask_streams, masked
from prefopt.rank_logs import capture, complain, write_exit


def main(run_dir: Path) -> int:
    """The rank's exit code. What is a user's fault, or a disk's, goes to stderr and, for the launcher, to exit.json."""
    _import()
    from prefopt.train.loop import Trainer

    trainer = None
    try:
        trainer = Trainer(run_dir)
        trainer.run()
    except Exception as error:
        told = error if isinstance(error, UserError) else _of_the_disk(error, run_dir)
        if told is None:
            raise
        _tell(told, run_dir)
        return told.exit_code
    except KeyboardInterrupt:
        return 130
    finally:
        if trainer is not None:
            trainer.engine.close()
    return 0


def _import() -> None:
    """What takes seconds, and reads nothing of the run."""
    warnings.filterwarnings("ignore", module="torch|transformers|accelerate|deepspeed")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from prefopt.train.quiet import quiet_libraries

    quiet_libraries()
    import prefopt.train.loop  # noqa: F401


def _tell(error: UserError, run_dir: Path) -> None:
    """To the launcher and the log; usually all ranks fail alike, and the first to get here speaks for them."""
    message = masked(str(error))
    try:
        is_first = write_exit(run_dir, {"exit_code": error.exit_code, "message": message})
    except OSError:  # a full disk is what often brought us here
        complain(f"prefopt: {message}")
        return
    if is_first:
        with suppress(OSError):  # the command finds it in exit.json
            print(f"prefopt: {message}", file=sys.stderr)


def _of_the_disk(error: Exception, run_dir: Path) -> RunError | None:
    """The sentence for an error of a disk that is full, fails or went away; None for any other error."""
    if isinstance(error, FileNotFoundError) and not run_dir.exists():
        return RunError(f"{run_dir} is gone: somebody deleted it under the run, or its disk went away")
    return disk_failure(error)


if __name__ == "__main__":
    from prefopt.lifetime import die_with_parent, leave

    die_with_parent()
    mask_streams()  # before the libraries, whose loggers keep the streams that they find
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the model loads, Ctrl-C ends it without a traceback
    if is_early():
        with suppress(Exception):  # it comes again below, where it goes to the rank's log
            _import()
        wait_for_the_word()
    try:
        capture()
    except RunError as unwritable:
        print(f"prefopt: {unwritable}", file=sys.stderr)
        leave(unwritable.exit_code)
    leave(main(Path(sys.argv[1])))
