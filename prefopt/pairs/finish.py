"""All chunks to what is trained on: candidates with their scores, selected rows, what was left out, card and numbers.

Runs in one pass over the chunks. Every file is written beside its name and gets it when it is whole; `stats.json` comes
last: where it is, the folder is done. Two processes that finish the same folder write the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from prefopt import durable
from prefopt.errors import RunError
from prefopt.manifest import package_versions
from prefopt.pairs.card import About, DataFile, card, data_file
from prefopt.pairs.chance import chance_of
from prefopt.pairs.folder import (
    CANDIDATES,
    CARD,
    GENERATED,
    LEFT_OUT,
    NOT_PROMPTS,
    ROWS,
    STATS,
    TABLE,
    Folder,
    judgements,
)
from prefopt.pairs.registry import make_stage
from prefopt.pairs.rows import Rows, margin_names
from prefopt.pairs.stages import UNFINISHED, WINS, Judged, LeftOut, Select
from prefopt.pairs.statistics import Statistics
from prefopt.pairs.table import write_table
from prefopt.records import Candidate, Example, example_to_json


def finish(folder: Folder, models: Mapping[str, str], evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Select, and write everything; the numbers that are written.

    models: sha256 of each, by name. evaluations: what was looked through for contamination.

    Raises: RunError where nothing at all could be selected.
    """
    settings = folder.settings
    select: Select = make_stage("select", settings.select)
    rows_of = Rows(select, settings.select, settings.seed, margin_names(settings.margins))
    statistics = Statistics()
    with ExitStack() as files:
        candidates, rows, left_out = (
            files.enter_context(_drafted(folder.path / name)) for name in (CANDIDATES, ROWS, LEFT_OUT)
        )

        def leave_out(why: LeftOut) -> None:
            statistics.left_out(why)
            _line(left_out, why._asdict())

        for why in _before(folder):
            leave_out(why)
        for chunk in range(folder.num_chunks):
            for example, details, lost in _scored(folder, chunk):
                for why in lost:
                    leave_out(why)
                if example is None:
                    continue
                candidates.write(example_to_json(example) + "\n")
                statistics.prompt(example)
                selected = select(example, chance_of(settings.seed, example, "select"))
                made = rows_of(example, selected, details)
                for row in made:
                    statistics.row(row)
                    _line(rows, row)
                if not made:
                    leave_out(LeftOut(example.id, selected.reason))
    numbers = statistics.as_dict()
    if not numbers["rows"]["count"]:
        reasons = ", ".join(
            f"{n} {why}" for what in ("prompts", "candidates") for why, n in numbers[what]["left_out"].items()
        )
        cut = numbers["candidates"]["left_out"].get(UNFINISHED, 0)
        mend = "raise generate.max_new_tokens, or keep what it cut: generate.unfinished=keep; " if cut else ""
        raise RunError(
            f"{folder.path}: not one row could be made; left out: {reasons}",
            f"{mend}{folder.path / LEFT_OUT} has each with its reason; other settings take another out=FOLDER, or this"
            f" one after rm -r {folder.path}",
        )
    write_table(folder.path / ROWS, folder.path / TABLE)
    notes = {ROWS: "what is trained on", TABLE: "the same", CANDIDATES: "every candidate", LEFT_OUT: "what is not used"}
    made_files = [data_file(folder.path / name, note) for name, note in notes.items()]
    weights = [DataFile(path, digest, "model") for path, digest in models.items()]
    about = About(settings, package_versions(), [*made_files, *weights], evaluations)
    durable.write_text(folder.path / CARD, card(about, numbers))
    durable.write_text(folder.path / STATS, json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")
    return numbers


def keep_unscored(folder: Folder) -> bool:
    """The answers of a folder that was not scored to its end as candidates.jsonl, without scores: for another score to
    take them. Whether they were written: not where some are missing, or the file is there.

    Raises: RunError where a chunk is damaged.
    """
    if folder.missing(GENERATED) or (folder.path / CANDIDATES).exists():
        return False
    with _drafted(folder.path / CANDIDATES) as lines:
        for chunk in range(folder.num_chunks):
            for generated in folder.generated(chunk):
                lines.writelines(example_to_json(example) + "\n" for example in generated.examples)
    return True


def _before(folder: Folder) -> Iterator[LeftOut]:
    """The prompts that were left out when the file was read."""
    with open(folder.path / NOT_PROMPTS, encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield LeftOut(**json.loads(line))


def _scored(folder: Folder, chunk: int) -> Iterator[tuple[Example | None, list[dict[str, Any]], list[LeftOut]]]:
    """Each Example of a chunk with its scores, details of its candidates, and what was left out of it; None where
    nothing is left.
    """
    judged = [iter(folder.judged(stage, chunk)) for stage in judgements(folder.settings)]
    for generated in folder.generated(chunk):
        before = list(generated.left_out)
        if not generated.examples:
            yield None, [], before
        for example in generated.examples:
            main, *margins = (next(of_stage) for of_stage in judged)
            yield _with_scores(example, main, margins, before)
            before = []


def _with_scores(
    example: Example, main: Judged, margins: list[Judged], lost: list[LeftOut]
) -> tuple[Example | None, list[dict[str, Any]], list[LeftOut]]:
    kept: list[int] = []
    for place, candidate in enumerate(example.candidates):
        reason = next((r for one in (main, *margins) if (r := one.reasons[place]) is not None), None)
        if reason is None:
            kept.append(place)
        else:
            lost = [*lost, LeftOut(example.id, reason, "", candidate.text)]
    if not kept:
        return None, [], [*lost, LeftOut(example.id, "no candidate has a score")]
    candidates = tuple(_with_score(example.candidates[place], place, kept, main, margins) for place in kept)
    details = [main.details[place] if main.details else {} for place in kept]
    return replace(example, candidates=candidates), details, lost


def _with_score(candidate: Candidate, place: int, kept: list[int], main: Judged, margins: list[Judged]) -> Candidate:
    """wins: of those that are kept against those that are kept."""
    source = dict(candidate.source or {})
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
