"""The prompts that candidates are made for: each once, and an account of every row that is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from prefopt.data.rows import Unusable
from prefopt.pairs.chance import key_of, number_of
from prefopt.pairs.prompt_rows import PromptRows, open_prompt_rows
from prefopt.pairs.stages import LeftOut
from prefopt.records import Candidate, Example
from prefopt.settings import SourceSettings


def read_prompts(
    path: str, split: str = "train", limit: int | None = None, with_responses: bool = False
) -> Iterator[Example | LeftOut]:
    """The prompts of a data file in order, and between them what is left out: rows that hold no prompt, prompts that
    were there before (their responses too), and, as a `LeftOut` with its text, a given response without words.

    with_responses: a prompt that comes again with other responses is another one, for they are what is worked on.
    path, split, limit: as of `SourceSettings`; see `prompt_rows` for what a row may be. Responses of the file are
    candidates with the source {"given": True}, and have the scores that the file gives them.

    Raises: UserError for a file that cannot be read, is empty, or has no column of prompts, before the first prompt is
    asked for; RunError where the disk or the hub refuses.
    """
    return _each_once(open_prompt_rows(SourceSettings(path=path, split=split, limit=limit)), with_responses)


def _each_once(opened: PromptRows, with_responses: bool) -> Iterator[Example | LeftOut]:
    first: dict[bytes, str] = {}
    for row in opened.rows:
        try:
            example = opened.read(row)
        except Unusable as why:
            yield LeftOut(row.id, why.reason, why.detail)
            continue
        if not example.prompt[-1].content.strip():
            yield LeftOut(row.id, "empty prompt")
            continue
        texts = [candidate.text for candidate in example.candidates] if with_responses else []
        key = number_of(key_of(example), *texts).to_bytes(16, "big")
        if key in first:
            yield LeftOut(row.id, "repeated prompt", f"it is that of {first[key]}")
            continue
        first[key] = row.id
        empty = [candidate for candidate in example.candidates if not _has_words(candidate)]
        for candidate in empty:
            yield LeftOut(row.id, "empty response", "a given one", candidate.text)
        yield replace(example, candidates=tuple(c for c in example.candidates if _has_words(c))) if empty else example


def _has_words(candidate: Candidate) -> bool:
    return bool(candidate.text.strip())
