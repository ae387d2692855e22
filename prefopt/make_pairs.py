"""The command `prefopt pairs`: prompts first, then the folder, then the processes that read it, then what they made.

Everything that can be refused is refused before a folder exists. A folder that is there goes on where it was, by any
number of processes and shards; whoever finds every chunk made puts all together.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from prefopt import __version__, durable
from prefopt.disk import unwritten, write_whole
from prefopt.durable import clear_drafts
from prefopt.errors import RunError, UserError
from prefopt.lock import alone_in, is_anyone_at, present_at
from prefopt.manifest import start_record
from prefopt.pairs.called import own_words
from prefopt.pairs.contamination import Contamination
from prefopt.pairs.folder import (
    CANDIDATES,
    CARD,
    GENERATED,
    LEFT_OUT,
    MANIFEST,
    NOT_PROMPTS,
    PROMPTS,
    ROWS,
    SETTINGS,
    STATS,
    Folder,
    is_nothing_made,
    settings_text,
)
from prefopt.pairs.places import real
from prefopt.pairs.prompts import read_prompts
from prefopt.pairs.registry import make_stage
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import LeftOut
from prefopt.pairs.statistics import cut_sentence
from prefopt.pairs_check import check_stages, fingerprints
from prefopt.pairs_config import PairsComposition, deciding
from prefopt.pairs_dry_run import dry_run_lines
from prefopt.pairs_workers import run_workers, shard_of
from prefopt.records import Example, example_from_json, example_to_json
from prefopt.run_folder import read_json
from prefopt.stage_config import differing
from prefopt.workers import stoppable

_OURS = (PROMPTS, NOT_PROMPTS, SETTINGS)
"""What a start writes before the manifest."""


def make_pairs(composition: PairsComposition, words: list[str], dry_run: bool = False) -> int:
    """Make, or go on with, the folder of these settings; the exit code. dry_run: check all of it and write nothing.

    Raises: UserError or RunError for what keeps it from starting; then nothing new is left behind. UserError with exit
        code 75 where a signal asked it to stop.
    """
    with stoppable(), own_words():
        return _make(composition.settings, words, dry_run)


def _make(settings: PairsSettings, words: list[str], dry_run: bool) -> int:
    shard = shard_of(settings.shard)
    path = Path(settings.out)
    about = {"settings": deciding(settings), "models": fingerprints(settings)}
    if _state(path, about):
        _tell(json.loads((path / STATS).read_text(encoding="utf-8")), path, "is done already")
        return 0
    read = cache(lambda: _prompts(settings))
    check_stages(settings, lambda: _longest(read()))
    prompts = read()
    _check_same_prompts(path, prompts.digest)
    if dry_run:
        for line in dry_run_lines(settings, prompts.kept.count("\n"), prompts.left_out.count("\n")):
            print(line)
        return 0
    try:
        durable.make_folder(path)
    except OSError as error:
        raise unwritten(path, error, "out") from None
    with alone_in(path):  # shards may start at once
        _state(path, about)
        _check_same_prompts(path, prompts.digest)
        if _is_free(path):
            clear_drafts(path)
            # The manifest of a start that made nothing is replaced, last, and never taken away: where the disk is full
            # or this is killed here, the folder is still one that any command may have.
            started = start_record(["prefopt", "pairs", *words], {"version": __version__})
            for name, text in (
                (PROMPTS, prompts.kept),
                (NOT_PROMPTS, prompts.left_out),
                (SETTINGS, settings_text(settings)),
                (MANIFEST, json.dumps({**about, "prompts": prompts.digest, "start": started}, indent=2)),
            ):
                write_whole(path / name, text, "out")
        present = ExitStack()
        present.enter_context(present_at(path / MANIFEST))
    folder = Folder(path, settings)
    with present:
        try:
            code = run_workers(folder, shard)
        finally:
            _keep_answers(folder)
    if code:
        return code
    if not folder.is_judged:
        print(f"prefopt: shard {shard[0]}/{shard[1]} of {path} is done; the last one to end puts all together")
        return 0
    from prefopt.pairs.finish import finish

    with alone_in(path):  # they may end at once, too
        clear_drafts(path, below=not is_anyone_at(path / MANIFEST))  # of one that was killed here
        _tell(finish(folder, about["models"], prompts.evaluations), path, "is done")
    return 0


def _keep_answers(folder: Folder) -> None:
    """Whatever ended the scoring before its end has not cost the answers: the file that a refusal names is there."""
    if folder.is_judged or folder.missing(GENERATED):
        return
    from prefopt.pairs.finish import keep_unscored

    with suppress(OSError, RunError), alone_in(folder.path):  # what went wrong before is what has to be said
        if keep_unscored(folder):
            kept = folder.path / CANDIDATES
            print(
                f"prefopt: all answers are there; others may score them: generate=given prompts={kept}", file=sys.stderr
            )


def _state(path: Path, about: Mapping[str, Any]) -> bool:
    """Whether the folder is done. Changes nothing.

    Raises: UserError where it belongs to something else, with what differs.
    """
    if not path.exists():
        return False
    if not path.is_dir():
        raise UserError(f"{path} is a file, not a folder", "another place: out=FOLDER")
    if not (path / MANIFEST).exists():
        foreign = sorted(p.name for p in path.iterdir() if p.name not in _OURS and not p.name.startswith("."))
        if foreign:
            raise UserError(f"{path} is no folder of prefopt pairs: it holds {foreign[0]}", "another place: out=FOLDER")
        return False
    found = read_json(path / MANIFEST, "out") or {}
    if not isinstance(found.get("settings"), dict) or not isinstance(found.get("models"), dict):
        raise UserError(
            f"{path} is no folder of prefopt pairs: its {MANIFEST} is another's", "another place: out=FOLDER"
        )
    if _is_free(path):
        return False
    if lines := differing({key: found[key] for key in about}, about):
        candidates = path / CANDIDATES
        again = f"to score or select its answers again: generate=given prompts={candidates} out=FOLDER"
        go_on = "the command that began it goes on with its answers"
        kept = again if candidates.exists() and candidates.stat().st_size else go_on
        raise UserError(
            f"{path} holds other pairs; it is left as it is. What differs (there -> here):\n  " + "\n  ".join(lines),
            f"another place by out=FOLDER; {kept}; or, if nobody wants them: rm -r {path}",
        )
    return (path / STATS).exists()


_LONGEST = 1000
"""Prompts that are looked at to tell how long the longest is: those of the most characters."""


def _longest(prompts: _Prompts) -> list[Example]:
    lines = heapq.nlargest(_LONGEST, prompts.kept.split("\n")[:-1], key=len)
    return [example_from_json(line) for line in lines]


class _Prompts(NamedTuple):
    """The prompts of a file, as they are kept, a hash of them, and what was looked through for contamination."""

    kept: str
    left_out: str
    digest: str
    evaluations: list[dict[str, Any]]


def _prompts(settings: PairsSettings) -> _Prompts:
    """Read the prompts, and leave out those that come again or that must not be trained on."""
    contamination = Contamination([real(path, "avoid") for path in settings.avoid])
    kept, left_out = [], []
    with_responses = make_stage("generate", settings.generate).works_on_responses
    for found in read_prompts(real(settings.prompts, "prompts"), settings.split, settings.limit, with_responses):
        if isinstance(found, Example) and (overlap := contamination(found)) is not None:
            found = LeftOut(found.id, "also an evaluation prompt", str(overlap))
        if isinstance(found, Example):
            kept.append(example_to_json(found) + "\n")
        else:
            left_out.append(json.dumps(found._asdict(), ensure_ascii=False) + "\n")
    if not kept:
        first = f": {json.loads(left_out[0])['reason']}" if left_out else ""
        raise UserError(f"prompts={settings.prompts}: no prompt can be used{first}", "look at the file")
    texts = "".join(kept), "".join(left_out)
    evaluations = [one.as_json() for one in contamination.evaluations]
    return _Prompts(*texts, hashlib.sha256("\0".join(texts).encode()).hexdigest(), evaluations)


def _is_free(path: Path) -> bool:
    """Whether nobody has made anything in a folder, nor is about to: then any command may have it."""
    begun = path / MANIFEST
    return not begun.exists() or (is_nothing_made(path) and not is_anyone_at(begun))


def _check_same_prompts(path: Path, digest: str) -> None:
    """Raises: UserError where the folder was begun with other prompts."""
    found = read_json(path / MANIFEST, "out") if path.is_dir() and not _is_free(path) else None
    if found is not None and found.get("prompts") != digest:
        raise UserError(f"{path} was begun with other prompts; it is left as it is", "restore the file, or out=FOLDER")


def _tell(numbers: Mapping[str, Any], path: Path, what: str) -> None:
    """The summary on stdout."""
    prompts, candidates = numbers["prompts"], numbers["candidates"]
    print(
        f"prefopt: {path} {what}: {numbers['rows']['count']} rows from {candidates['count']} candidates of"
        f" {prompts['with_candidates']} prompts in {path / ROWS}"
    )
    for name, lost in (("prompts", prompts["left_out"]), ("candidates", candidates["left_out"])):
        if lost:
            counts = ", ".join(f"{count} {reason}" for reason, count in lost.items())
            print(f"prefopt: {name} left out: {counts} ({path / LEFT_OUT})")
    if cut := cut_sentence(numbers):
        print(f"prefopt: {cut}")
    print(f"prefopt: {path / CARD} says how they were made and what they are like")
