"""python -m prefopt.evaluate PART FOLDER NUMBER OF DEVICE: one process of `prefopt eval`. Its settings come by stdin.

PART: "work" does a share of the work of a measure that has `work`; "measure" measures and writes what was found.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

from prefopt.disk import disk_failure
from prefopt.errors import UserError
from prefopt.evaluate.folder import write_measured
from prefopt.evaluate.measure import EvalPlace
from prefopt.evaluate.registry import make_measure
from prefopt.evaluate.settings import EvalSettings
from prefopt.fill import from_mapping
from prefopt.masking import mask_streams, masked


def main(part: str, place: EvalPlace, number: int, of: int) -> int:
    """The exit code. What is a user's fault, or a disk's, is said in one sentence on stderr."""
    warnings.filterwarnings("ignore", module="torch|transformers")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        measure = make_measure(place.settings.measure)
        if part == "work":
            measure.work(place, number, of)
        else:
            write_measured(place.folder, place.settings.name, measure(place))
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


if __name__ == "__main__":
    from prefopt.lifetime import leave

    mask_streams()
    _part, _folder, _number, _of, _device = sys.argv[1:6]
    told = json.load(sys.stdin)
    settings = from_mapping(EvalSettings, told["settings"])
    run = Path(settings.run) if settings.run else None
    leave(main(_part, EvalPlace(settings, Path(_folder), told["model"], run, _device), int(_number), int(_of)))
