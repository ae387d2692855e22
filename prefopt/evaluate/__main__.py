"""python -m prefopt.evaluate PART FOLDER NUMBER OF DEVICE: one process of `prefopt eval`. Its settings come by stdin.

PART: "work" does a share of the work of a measure that has `work`; "measure" measures and writes what was found.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

from prefopt.evaluate.folder import write_measured
from prefopt.evaluate.measure import EvalPlace
from prefopt.evaluate.registry import make_measure
from prefopt.evaluate.settings import EvalSettings
from prefopt.fill import from_mapping
from prefopt.lifetime import in_a_sentence, leave
from prefopt.masking import mask_streams
from prefopt.pairs.called import own_words


def main(part: str, place: EvalPlace, number: int, of: int) -> int:
    """The exit code. What is a user's fault, or a disk's, is said in one sentence on stderr."""
    warnings.filterwarnings("ignore", module="torch|transformers")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

    def measure() -> None:
        made = make_measure(place.settings.measure)
        with own_words():
            if part == "work":
                made.work(place, number, of)
            else:
                write_measured(place.folder, place.settings.name, made(place))

    return in_a_sentence(measure)


if __name__ == "__main__":
    mask_streams()
    _part, _folder, _number, _of, _device = sys.argv[1:6]
    told = json.load(sys.stdin)
    settings = from_mapping(EvalSettings, told["settings"])
    run = Path(settings.run) if settings.run else None
    leave(main(_part, EvalPlace(settings, Path(_folder), told["model"], run, _device), int(_number), int(_of)))
