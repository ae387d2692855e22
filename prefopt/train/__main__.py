"""python -m prefopt.train RUN_DIR: one rank. Reads the run folder and nothing else."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from pathlib import Path


def main(run_dir: Path) -> int:
    """The rank's exit code. A user's error goes to stderr and, for the launcher, to exit.json; others are our bugs."""
    warnings.filterwarnings("ignore", module="torch|transformers|accelerate|deepspeed")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from prefopt.errors import UserError
    from prefopt.masking import masked
    from prefopt.train.quiet import quiet_libraries

    quiet_libraries()
    from prefopt.train.loop import Trainer

    trainer = None
    try:
        trainer = Trainer(run_dir)
        trainer.run()
    except UserError as error:
        message = masked(str(error))
        try:  # usually all ranks fail alike; the first to get here speaks for them
            with open(run_dir / "exit.json", "x", encoding="utf-8") as file:
                json.dump({"exit_code": error.exit_code, "message": message}, file)
            print(f"prefopt: {message}", file=sys.stderr)
        except FileExistsError:
            pass
        except OSError:  # a full disk is what often brought us here
            print(f"prefopt: {message}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    finally:
        if trainer is not None:
            trainer.engine.close()
    return 0


if __name__ == "__main__":
    from prefopt.lifetime import die_with_parent, leave
    from prefopt.masking import mask_streams
    from prefopt.rank_logs import capture

    die_with_parent()
    capture()
    mask_streams()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the model loads, Ctrl-C ends it without a traceback
    leave(main(Path(sys.argv[1])))
