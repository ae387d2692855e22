"""python -m prefopt.job NOTE train ...: one job of a sweep. `prefopt train` that writes down how it ends.

NOTE is a JSON file: {host, pid, process_started} from the start on, exit_code besides once it has ended. It is true
whoever started the job, and whether or not somebody waits for it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

from prefopt.cli import main
from prefopt.disk import write_whole
from prefopt.lock import process_of
from prefopt.masking import mask_streams
from prefopt.sweeps.states import STARTS


def run_job(note: Path, words: list[str]) -> int:
    """The exit code of `prefopt WORDS`, which is in the note then."""
    about = process_of(os.getpid())
    write_whole(note, json.dumps(about))
    print(f"{STARTS} {datetime.now(UTC).isoformat(timespec='seconds')}", flush=True)  # the log has all starts
    try:
        code = main(words)
    except Exception:  # a bug of ours: shown as Python would show it, and written down too
        traceback.print_exc()
        code = 1
    write_whole(note, json.dumps({**about, "exit_code": code}))
    return code


if __name__ == "__main__":
    mask_streams()  # both go into the job's log
    sys.exit(run_job(Path(sys.argv[1]), sys.argv[2:]))
