"""samples.jsonl of a run: answers before and after training in one file, as two lists of answers."""

from __future__ import annotations

from pathlib import Path

from prefopt.data.files import read_jsonl
from prefopt.data.rows import Unusable, text
from prefopt.errors import UserError
from prefopt.evaluate.answer_files import Answer


def is_samples_file(path: Path) -> bool:
    """Whether the first row of a .jsonl file has `before` and `after`. Raises: as `read_jsonl`."""
    if not path.is_file() or not path.name.endswith((".jsonl", ".jsonl.gz")):
        return False
    first = next(iter(read_jsonl(path, path.name)), None)
    return first is not None and {"before", "after"} <= first.value.keys()


def read_samples(path: Path) -> tuple[list[Answer], list[Answer]]:
    """Answers before and after training, in the order of the file (`prefopt/train/answers.py` writes it).

    Raises: UserError for a row that is not what it should be, by file and line.
    """
    before, after = [], []
    for row in read_jsonl(path, str(path)):
        try:
            named = text(row.value, "id"), text(row.value, "prompt")
            before.append(Answer(*named, text(row.value, "before"), "before"))
            after.append(Answer(*named, text(row.value, "after"), "after"))
        except Unusable as why:
            raise UserError(f"{row.id}: {why.reason} ({why.detail})", "repair or delete that row") from None
    return before, after
