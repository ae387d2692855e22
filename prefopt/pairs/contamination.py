"""Which prompts are also those of an evaluation: equal but for case, punctuation and white space, or 13 words in a row
that are the same (the measure of GPT-3, Brown et al. 2020, arXiv 2005.14165, appendix C).

Evaluations are data files: any that prompts can be read from (`prompt_rows`), and the question files of AlpacaEval,
Arena-Hard and MT-Bench. A prompt's whole text or its first turn is compared for equality with theirs, and the words of
every turn of the user for runs. Prompts of fewer than 13 words can only be equal. What an evaluation's and all of one's
own prompts begin with, such as a template in plain text, counts as shared: the words of an `Overlap` show it.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from prefopt.data.rows import Unusable
from prefopt.errors import UserError
from prefopt.pairs.prompt_rows import open_prompt_rows, turn_texts, user_turns
from prefopt.records import Example
from prefopt.settings import SourceSettings

RUN = 13
"""Words in a row that two prompts must share."""

_APOSTROPHES = str.maketrans("", "", "'’ʼ")
_WORD = re.compile(r"[^\W_]+")


class Overlap(NamedTuple):
    """Where else a prompt stands.

    path: the evaluation's file, as it was given. row: its row, such as "question.jsonl:17". words: the first run that
    both share; empty where the prompts are equal.
    """

    path: str
    row: str
    words: str = ""

    def __str__(self) -> str:
        return f'{self.row} shares "{self.words}"' if self.words else f"{self.row} is the same prompt"


@dataclass(frozen=True)
class Evaluation:
    """What was read of an evaluation's file. unreadable: rows of which no prompt could be read."""

    path: str
    rows: int
    unreadable: int

    def as_json(self) -> dict[str, Any]:
        """For the account."""
        return {"path": self.path, "rows": self.rows, "unreadable": self.unreadable}


class Contamination:
    """The prompts of evaluations, by their words. About 85 bytes for every word of them."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Reads every file.

        Raises: UserError for a file that cannot be read, or from which no prompt can be; RunError for disk or network.
        """
        self._equal: dict[bytes, tuple[str, str]] = {}
        self._runs: dict[bytes, tuple[str, str]] = {}
        self.evaluations = tuple(self._read(path) for path in paths)

    def __call__(self, example: Example) -> Overlap | None:
        """Where this prompt overlaps with an evaluation's: in the first file, and row, that has its words."""
        turns = [words_of(turn) for turn in user_turns(example)]
        for words in _wholes(turns):
            if found := self._equal.get(_key(words)):
                return Overlap(*found)
        for run in _runs(turns):
            if found := self._runs.get(_key(run)):
                return Overlap(*found, " ".join(run))
        return None

    def _read(self, path: str) -> Evaluation:
        opened = open_prompt_rows(SourceSettings(path=path))
        count = unreadable = 0
        reason = ""
        for row in opened.rows:
            count += 1
            try:
                turns = [words_of(turn) for turn in turn_texts(row, opened.prompt_only)]
            except Unusable as why:
                unreadable += 1
                reason = reason or f"{row.id}: {why.reason}"
                continue
            place = (path, row.id)
            for words in _wholes(turns):
                self._equal.setdefault(_key(words), place)
            for run in _runs(turns):
                self._runs.setdefault(_key(run), place)
        if unreadable == count:
            raise UserError(f"{path}: no prompt can be read from any of its {count} rows ({reason})", "check the file")
        return Evaluation(path, count, unreadable)


def words_of(text: str) -> list[str]:
    """The words of a text without case and punctuation. Apostrophes join: "Don't" is dont."""
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_APOSTROPHES)
    return _WORD.findall(folded)


def _wholes(turns: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """All the words, and those of the first turn; nothing of a prompt that has none."""
    return [words for words in ([word for turn in turns for word in turn], *turns[:1]) if words]


def _runs(turns: Sequence[Sequence[str]]) -> Iterator[Sequence[str]]:
    for turn in turns:
        for start in range(len(turn) - RUN + 1):
            yield turn[start : start + RUN]


def _key(words: Sequence[str]) -> bytes:
    return hashlib.blake2b(" ".join(words).encode(), digest_size=12).digest()
