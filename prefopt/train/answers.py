"""Answers before and after training, side by side in the run folder."""

from __future__ import annotations

import json
from pathlib import Path

from prefopt.disk import write_whole
from prefopt.train.rows import Rows


class KeptAnswers:
    """Answers before training: kept in the run folder, because a resumed run can no longer give them."""

    def __init__(self, path: Path, is_main: bool) -> None:
        self._path = path
        self._is_main = is_main

    def write(self, answers: list[str]) -> None:
        """Keep the answers of an untrained model; nothing where there are none."""
        if self._is_main and answers:
            write_whole(self._path, json.dumps(answers, ensure_ascii=False))

    def compare(self, after: list[str], rows: Rows, path: Path) -> None:
        """samples.jsonl: prompt, answer before, answer after, and the chosen response of the data."""
        if not (self._is_main and after):
            return
        before = json.loads(self._path.read_text(encoding="utf-8"))
        with open(path, "w", encoding="utf-8") as file:
            for place, (old, new) in enumerate(zip(before, after, strict=True)):
                line = {
                    "id": rows[place].id,
                    "prompt": rows.data.prompt_text(place),
                    "before": old,
                    "after": new,
                    "chosen": rows.data.chosen_text(place),
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
