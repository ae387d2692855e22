"""All chunks to what is trained on: candidates with their scores, selected rows, what was left out, card and numbers.

Runs in one pass over the chunks. Every file is written beside its name and gets it when it is whole; `stats.json` comes
last: where it is, the folder is done. Two processes that finish the same folder write the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from prefopt import durable
from prefopt.errors import RunError
from prefopt.pairs.card import card
from prefopt.pairs.chance import chance_of
from prefopt.pairs.folder import (
    CANDIDATES,
    CARD,
    LEFT_OUT,
    NOT_PROMPTS,
    ROWS,
    STATS,
    TABLE,
    Folder,
    judgements,
)
from prefopt.pairs.registry import make_stage
from prefopt.pairs.rows import rows_of
from prefopt.pairs.stages import WINS, Judged, LeftOut, Select
from prefopt.pairs.statistics import Statistics
from prefopt.pairs.table import write_table
from prefopt.records import Candidate, Example, example_to_json


def finish(folder: Folder, about: dict[str, Any]) -> dict[str, Any]:
    """Select, and write everything; the numbers that are written. about: what made it, for the card.

    Raises: RunError where nothing at all could be selected.
    """
    settings = folder.settings
    select: Select = make_stage("select", settings.select)
    statistics = Statistics(select.writes)
    with ExitStack() as files:
        candidates, rows, left_out = (
            files.enter_context(_drafted(folder.path / name)) for name in (CANDIDATES, ROWS, LEFT_OUT)
        )
        for why in _before(folder):
            statistics.add_left_out(why)
            _line(left_out, why._asdict())
        for chunk in range(folder.num_chunks):
            for example, lost in _scored(folder, chunk):
                for why in lost:
                    statistics.add_left_out(why)
                    _line(left_out, why._asdict())
                if example is None:
                    continue
                candidates.write(example_to_json(example) + "\n")
                selected = select(example, chance_of(settings.seed, example, "select"))
                made = rows_of(example, selected, settings, select.writes)
                if not made:
                    why = LeftOut(example.id, selected.reason or "nothing was selected")
                    statistics.add_left_out(why)
                    _line(left_out, why._asdict())
                statistics.add(example, selected)
                for row in made:
                    _line(rows, row)
    numbers = statistics.numbers()
    if not numbers["num_rows"]:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in numbers["left_out"].items())
        raise RunError(
            f"{folder.path}: no row could be made of {numbers['num_prompts']} prompts ({reasons or 'there are none'})",
            f"{folder.path / LEFT_OUT} has each with its reason",
        )
    write_table(folder.path / ROWS, folder.path / TABLE)
    numbers = {**numbers, **about}
    durable.write_text(folder.path / CARD, card(settings, numbers))
    durable.write_text(folder.path / STATS, json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")
    return numbers


def _before(folder: Folder) -> Iterator[LeftOut]:
    """The prompts that were left out when the file was read."""
    with open(folder.path / NOT_PROMPTS, encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield LeftOut(**json.loads(line))


def _scored(folder: Folder, chunk: int) -> Iterator[tuple[Example | None, list[LeftOut]]]:
    """Each Example of a chunk with its scores, and what was left out of it; None where nothing is left."""
    judged = [iter(folder.judged(stage, chunk)) for stage in judgements(folder.settings)]
    for generated in folder.generated(chunk):
        if not generated.examples:
            yield None, list(generated.left_out)
        for number, example in enumerate(generated.examples):
            main, *margins = (next(of_stage) for of_stage in judged)
            scored, lost = _with_scores(example, main, margins)
            yield scored, [*(generated.left_out if number == 0 else ()), *lost]


def _with_scores(example: Example, main: Judged, margins: list[Judged]) -> tuple[Example | None, list[LeftOut]]:
    kept: list[int] = []
    lost: list[LeftOut] = []
    for place, candidate in enumerate(example.candidates):
        reasons = [reason for one in (main, *margins) if (reason := one.reasons[place]) is not None]
        if reasons:
            lost.append(LeftOut(example.id, reasons[0], "", candidate.text))
        else:
            kept.append(place)
    if not kept:
        return None, [*lost, LeftOut(example.id, "no candidate has a score")]
    return replace(example, candidates=tuple(_scored_candidate(example, p, kept, main, margins) for p in kept)), lost


def _scored_candidate(example: Example, place: int, kept: list[int], main: Judged, margins: list[Judged]) -> Candidate:
    candidate = example.candidates[place]
    source = dict(candidate.source or {})
    if main.details:
        source |= main.details[place]
    if main.wins is not None:
        source[WINS] = [main.wins[place][other] for other in kept]
    numbers = tuple(score for one in margins if (score := one.scores[place]) is not None)
    return replace(candidate, score=main.scores[place], margins=numbers or None, source=source or None)


def _line(file: IO[str], value: dict[str, Any]) -> None:
    file.write(json.dumps(value, ensure_ascii=False) + "\n")


@contextmanager
def _drafted(path: Path) -> Iterator[IO[str]]:
    """A text file that gets its name when it is whole."""
    draft = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(draft, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        durable.publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)
