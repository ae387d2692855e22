"""python -m prefopt.pairs FOLDER SHARD SHARDS NUMBER OF DEVICE: one process. Reads its settings from stdin."""

from __future__ import annotations

import json
import os
import sys
import warnings
from functools import partial
from pathlib import Path

from prefopt import durable
from prefopt.disk import disk_failure
from prefopt.errors import UserError
from prefopt.fill import from_mapping
from prefopt.masking import mask_streams, masked
from prefopt.pairs.folder import Folder
from prefopt.pairs.settings import PairsSettings


def main(settings: PairsSettings, path: Path, share: tuple[int, int, int, int], device: str) -> int:
    """The exit code. What is a user's fault, or a disk's, is said in one sentence on stderr. share: as of `Share`."""
    warnings.filterwarnings("ignore", module="torch|transformers")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from prefopt.pairs.stages import Place
    from prefopt.pairs.work import Share, work
    from prefopt.train.quiet import quiet_libraries

    quiet_libraries()
    mine = Share(*share)
    say = partial(print, f"[{mine.number}]" if mine.of > 1 else "pairs:", file=sys.stderr, flush=True)
    try:
        notes = path / "notes"
        durable.make_folder(notes)
        work(Folder(path, settings), Place(settings, device, str(notes), say), mine)
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
    given = from_mapping(PairsSettings, json.load(sys.stdin))
    shard, shards, number, of = (int(word) for word in sys.argv[2:6])
    leave(main(given, Path(sys.argv[1]), (shard, shards, number, of), sys.argv[6]))
