"""Answers kept while they are made: a chunk of questions is there whole or not at all, and is never asked again.

answered/about.json            what decides the answers, and when the first start was
answered/turn-1/00000.jsonl    what became of the first questions, a line each, in their order

Standard library only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefopt import durable
from prefopt.disk import unwritten, write_whole
from prefopt.errors import RunError, UserError

_ABOUT = "about.json"


@dataclass(frozen=True)
class Reply:
    """What became of a question in one turn.

    response: the answer; None where it could not be asked, for `reason` with `detail`. tokens, stopped: as of `Answer`.
    bos: how many BOS the prompt begins with. special: special tokens within the answer, which its text does not hold.
    """

    id: str
    response: str | None
    tokens: int = 0
    stopped: bool = False
    bos: int = 0
    special: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""


class Chunks:
    """The folder of what is answered already."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        """folder: made with the first chunk that is kept. about: what decides the answers, as JSON.

        Raises: UserError where it was begun with something else; RunError where it is damaged.
        """
        self._folder = folder
        self._about: dict[str, Any] = json.loads(json.dumps(about))
        self.begun = time.time()
        """Seconds since 1970: when the first start began to answer."""
        file = folder / _ABOUT
        if not file.exists():
            return
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            self.begun = float(found.pop("begun"))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RunError(f"{file} is damaged", f"delete {folder}: the answers are made again") from None
        differ = [
            f"{key}: {found.get(key)} -> {self._about.get(key)}"
            for key in sorted(found.keys() | self._about.keys())
            if found.get(key) != self._about.get(key)
        ]
        if differ:
            raise UserError(
                f"{folder} holds other answers; it is left as it is. What differs (there -> here): {'; '.join(differ)}",
                "another place: out=FOLDER",
            )

    def find(self, turn: int, chunk: int, ids: list[str]) -> list[Reply] | None:
        """What became of the questions `ids` of a chunk in a turn; None where they were not asked yet.

        Raises: RunError where the file is damaged.
        """
        file = self._file(turn, chunk)
        if not file.exists():
            return None
        replies = []
        with open(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    fields = json.loads(line)
                    replies.append(Reply(**{**fields, "special": tuple(fields["special"])}))
                except (ValueError, KeyError, TypeError):
                    raise _damaged(f"{file}:{number} is damaged") from None
        if [reply.id for reply in replies] != ids:
            raise _damaged(f"{file} is damaged: it does not answer the {len(ids)} questions that were asked")
        return replies

    def keep(self, turn: int, chunk: int, replies: list[Reply]) -> None:
        """Put a chunk's replies onto the disk. Raises: RunError where that cannot be done."""
        file = self._file(turn, chunk)
        try:
            durable.make_folder(file.parent)
            durable.clear_drafts(file.parent)  # of a start that was killed here
            durable.clear_drafts(self._folder)
        except OSError as error:
            raise unwritten(file.parent, error, "out") from None
        if not (self._folder / _ABOUT).exists():
            about = {"begun": self.begun, **self._about}
            write_whole(self._folder / _ABOUT, json.dumps(about, indent=2, ensure_ascii=False) + "\n", "out")
        write_whole(file, "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in replies), "out")

    def _file(self, turn: int, chunk: int) -> Path:
        return self._folder / f"turn-{turn}" / f"{chunk:05d}.jsonl"


def _damaged(what: str) -> RunError:
    return RunError(what, "delete that file: the same command makes it again")
