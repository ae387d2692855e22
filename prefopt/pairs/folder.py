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
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from prefopt import durable
from prefopt.errors import RunError
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import Generated, Judged, LeftOut
from prefopt.records import Example, example_from_json, example_to_json

SETTINGS, MANIFEST, PROMPTS, NOT_PROMPTS = "pairs.yaml", "manifest.json", "prompts.jsonl", "prompts_left_out.jsonl"
CANDIDATES, ROWS, TABLE, LEFT_OUT = "candidates.jsonl", "pairs.jsonl", "pairs.parquet", "left_out.jsonl"
CARD, STATS = "card.md", "stats.json"
GENERATED = "generated"

NOTES = "notes"

Made = TypeVar("Made", Generated, Judged)


def judgements(settings: PairsSettings) -> list[str]:
    """The folders of judgements: of the main score, then of each margin."""
    return ["judged/score", *(f"judged/margins.{number}" for number in range(len(settings.margins)))]


def is_nothing_made(path: Path) -> bool:
    """Whether a folder that was begun holds no answer, no score and nothing that was paid for."""
    return not any(p.is_file() for part in (GENERATED, "judged", NOTES) for p in (path / part).rglob("*"))


class Folder:
    """What is there and what is missing."""

    def __init__(self, path: Path, settings: PairsSettings) -> None:
        self.path = path
        self.settings = settings

    @cached_property
    def _begins(self) -> list[int]:
        """Where each chunk begins in the file of prompts, which is never changed: the byte."""
        begins, byte = [], 0
        with open(self.path / PROMPTS, "rb") as lines:
            for number, line in enumerate(lines):
                if number % self.settings.chunk_size == 0:
                    begins.append(byte)
                byte += len(line)
        return begins

    @property
    def num_chunks(self) -> int:
        """Chunks of all prompts, the last one perhaps shorter."""
        return len(self._begins)

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
        with open(self.path / PROMPTS, "rb") as lines:
            lines.seek(self._begins[chunk])
            return [example_from_json(line.decode()) for line in islice(lines, self.settings.chunk_size)]

    def write_generated(self, chunk: int, generated: Iterable[Generated]) -> None:
        """Keep what became of a chunk's prompts. What others of its answers were worth is forgotten."""
        for stage in judgements(self.settings):
            self._file(stage, chunk).unlink(missing_ok=True)
        lines = [
            {
                "examples": [json.loads(example_to_json(example)) for example in one.examples],
                "left_out": [why._asdict() for why in one.left_out],
            }
            for one in generated
        ]
        self._write(GENERATED, chunk, lines)

    def generated(self, chunk: int) -> list[Generated]:
        """What became of a chunk's prompts. Raises: RunError where the file is damaged."""
        return self._read(GENERATED, chunk, _generated, len(self.prompts(chunk)))

    def write_judged(self, stage: str, chunk: int, judged: Iterable[Judged]) -> None:
        """Keep what a chunk's candidates are worth, Example after Example."""
        self._write(stage, chunk, [one._asdict() for one in judged])

    def judged(self, stage: str, chunk: int) -> list[Judged]:
        """What a chunk's candidates are worth, Example after Example. Raises: RunError where the file is damaged."""
        return self._read(stage, chunk, _judged, sum(len(one.examples) for one in self.generated(chunk)))

    def _file(self, stage: str, chunk: int) -> Path:
        return self.path / stage / f"{chunk:05d}.jsonl"

    def _write(self, stage: str, chunk: int, lines: list[dict[str, Any]]) -> None:
        durable.make_folder(self.path / stage)
        text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
        durable.write_text(self._file(stage, chunk), text)

    def _read(self, stage: str, chunk: int, read: Callable[[Any], Made], count: int) -> list[Made]:
        """count: lines that there must be: one that is lost would be a prompt that nobody misses."""
        file, made = self._file(stage, chunk), []
        with open(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    made.append(read(json.loads(line)))
                except (ValueError, KeyError, TypeError):
                    raise _damaged(f"{file}:{number} is damaged") from None
        if len(made) != count:
            raise _damaged(f"{file} is damaged: it has {len(made)} lines where {count} were written")
        return made


def _generated(line: Any) -> Generated:
    return Generated(
        tuple(example_from_json(json.dumps(example)) for example in line["examples"]),
        tuple(LeftOut(**why) for why in line["left_out"]),
    )


def _judged(line: Any) -> Judged:
    return Judged(
        tuple(line["scores"]),
        tuple(line["reasons"]),
        None if line["wins"] is None else tuple(tuple(row) for row in line["wins"]),
        tuple(line["details"]),
    )


def _damaged(what: str) -> RunError:
    return RunError(what, "delete that file: the same command makes it again")


def settings_text(settings: PairsSettings) -> str:
    """The settings as YAML, which JSON is part of."""
    return json.dumps(asdict(settings), indent=2, ensure_ascii=False) + "\n"
