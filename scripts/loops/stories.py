"""shared/data/stories_happy as files that prefopt reads: rankings to train on, and held-out ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import NamedTuple

SHARED = Path(__file__).resolve().parents[3] / "shared"
MODEL = SHARED / "models" / "stories260K"
NUM_TRAIN = 900


class Stories(NamedTuple):
    """train: 900 prompts with six scored responses each. heldout: the other 300."""

    train: Path
    heldout: Path


def write_stories(folder: Path) -> Stories:
    """Write both files, responses with the space that joins them to their prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    with gzip.open(SHARED / "data" / "stories_happy" / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            rows.append({**row, "responses": [f" {response.strip()}" for response in row["responses"]]})
    found = Stories(folder / "train.jsonl", folder / "heldout.jsonl")
    for path, part in zip(found, (rows[:NUM_TRAIN], rows[NUM_TRAIN:]), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    return found
