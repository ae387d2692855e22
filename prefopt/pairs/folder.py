"""The folder of a `prefopt pairs`: what is done is there whole, under a name that says what it is.

pairs.yaml, manifest.json   the settings; what the prompts and models were
prompts.jsonl               the prompts, in order, and prompts_left_out.jsonl: those that are not used
generated/00000.jsonl       answers to the first `chunk_size` prompts
judged/score/00000.jsonl    what their candidates are worth; judged/margins.0/ and so on for other objectives
candidates.jsonl            every candidate with its scores
pairs.jsonl, pairs.parquet  what is trained on
left_out.jsonl              every prompt and candidate that is not, with the reason
card.md, stats.json         what was made, in words and as numbers; stats.json is written last

A chunk depends on the settings and its prompts alone: whoever makes it, makes the same, and a second one in the same
place does no harm. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from prefopt import durable
from prefopt.errors import RunError
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import Generated, Judged, LeftOut
from prefopt.records import Example, example_from_json, example_to_json

SETTINGS, MANIFEST, PROMPTS, NOT_PROMPTS = "pairs.yaml", "manifest.json", "prompts.jsonl", "prompts_left_out.jsonl"
CANDIDATES, ROWS, TABLE, LEFT_OUT = "candidates.jsonl", "pairs.jsonl", "pairs.parquet", "left_out.jsonl"
CARD, STATS = "card.md", "stats.json"
GENERATED = "generated"


def judgements(settings: PairsSettings) -> list[str]:
    """The folders of judgements: of the main score, then of each margin."""
    return ["judged/score", *(f"judged/margins.{number}" for number in range(len(settings.margins)))]


class Folder:
    """What is there and what is missing."""

    def __init__(self, path: Path, settings: PairsSettings) -> None:
        self.path = path
        self.settings = settings

    @property
    def num_chunks(self) -> int:
        """Chunks of all prompts, the last one perhaps shorter."""
        with open(self.path / PROMPTS, "rb") as lines:
            count = sum(1 for _ in lines)
        return -(-count // self.settings.chunk_size)

    def has(self, stage: str, chunk: int) -> bool:
        """Whether a chunk has been through a stage."""
        return self._file(stage, chunk).exists()

    def missing(self, stage: str) -> list[int]:
        """The chunks that have not been through a stage."""
        return [chunk for chunk in range(self.num_chunks) if not self.has(stage, chunk)]

    @property
    def is_judged(self) -> bool:
        """Whether every chunk has been through every stage."""
        return not any(self.missing(stage) for stage in (GENERATED, *judgements(self.settings)))

    def prompts(self, chunk: int) -> list[Example]:
        """The prompts of a chunk."""
        first = chunk * self.settings.chunk_size
        with open(self.path / PROMPTS, encoding="utf-8", newline="\n") as lines:
            return [example_from_json(line) for line in islice(lines, first, first + self.settings.chunk_size)]

    def write_generated(self, chunk: int, generated: Iterable[Generated]) -> None:
        """Keep what became of a chunk's prompts."""
        lines = [
            {
                "examples": [json.loads(example_to_json(example)) for example in one.examples],
                "left_out": [why._asdict() for why in one.left_out],
            }
            for one in generated
        ]
        self._write(GENERATED, chunk, lines)

    def generated(self, chunk: int) -> list[Generated]:
        """What became of a chunk's prompts."""
        return [
            Generated(
                tuple(example_from_json(json.dumps(example)) for example in line["examples"]),
                tuple(LeftOut(**why) for why in line["left_out"]),
            )
            for line in self._read(GENERATED, chunk)
        ]

    def write_judged(self, stage: str, chunk: int, judged: Iterable[Judged]) -> None:
        """Keep what a chunk's candidates are worth, Example after Example."""
        self._write(stage, chunk, [one._asdict() for one in judged])

    def judged(self, stage: str, chunk: int) -> list[Judged]:
        """What a chunk's candidates are worth, Example after Example."""
        return [
            Judged(
                tuple(line["scores"]),
                tuple(line["reasons"]),
                None if line["wins"] is None else tuple(tuple(row) for row in line["wins"]),
                tuple(line["details"]),
            )
            for line in self._read(stage, chunk)
        ]

    def _file(self, stage: str, chunk: int) -> Path:
        return self.path / stage / f"{chunk:05d}.jsonl"

    def _write(self, stage: str, chunk: int, lines: list[dict[str, Any]]) -> None:
        durable.make_folder(self.path / stage)
        text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
        durable.write_text(self._file(stage, chunk), text)

    def _read(self, stage: str, chunk: int) -> Iterator[dict[str, Any]]:
        file = self._file(stage, chunk)
        with open(file, encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield json.loads(line)
                except ValueError:
                    raise RunError(
                        f"{file}:{number} is damaged", "delete that file: the same command makes it again"
                    ) from None


def settings_text(settings: PairsSettings) -> str:
    """The settings as YAML, which JSON is part of."""
    return json.dumps(asdict(settings), indent=2, ensure_ascii=False) + "\n"
