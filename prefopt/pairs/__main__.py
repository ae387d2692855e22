"""python -m prefopt.pairs FOLDER SHARD SHARDS NUMBER OF DEVICE: one process. Reads its settings from stdin."""

from __future__ import annotations

import json
import os
import sys
import warnings
from functools import partial
from pathlib import Path

from prefopt import durable
from prefopt.fill import from_mapping
from prefopt.lifetime import in_a_sentence, leave
from prefopt.masking import mask_streams
from prefopt.pairs.called import own_words
from prefopt.pairs.folder import NOTES, Folder
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
    notes = path / NOTES

    def share_of_it() -> None:
        durable.make_folder(notes)
        with own_words():
            work(Folder(path, settings), Place(settings, device, str(notes), say), mine)

    return in_a_sentence(share_of_it)


if __name__ == "__main__":
    mask_streams()
    given = from_mapping(PairsSettings, json.load(sys.stdin))
    shard, shards, number, of = (int(word) for word in sys.argv[2:6])
    leave(main(given, Path(sys.argv[1]), (shard, shards, number, of), sys.argv[6]))
