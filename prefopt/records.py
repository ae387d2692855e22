"""Text as it flows: one record per prompt, with one or more candidate responses.

SFT: one candidate. A pair: two, with scores 1 and 0. A ranking: any number with scores. KTO and ULMA: `label`.
MODPO: `margins`. Everything that reads a data format ends here, and everything that trains starts here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Message:
    """One turn. role: system, user, assistant or tool. content: its text."""

    role: str
    content: str


@dataclass(frozen=True)
class Candidate:
    """One response to a prompt.

    text: the response as plain text; for a conversation, the content of the final assistant turn.
    score: an outside judgement, higher is better; None where nobody judged.
    label: desirable or not, for methods that learn from single responses.
    margins: rewards of other objectives (MODPO), one number per objective.
    source: where it came from (model, seed, annotator), for the report only.
    """

    text: str
    score: float | None = None
    label: bool | None = None
    margins: tuple[float, ...] | None = None
    source: dict[str, Any] | None = None


@dataclass(frozen=True)
class Example:
    """One prompt and k >= 1 candidate responses.

    id: names the row in reports, for instance "train.jsonl:17" (file and 1-based line or row).
    prompt: the turns before the response. A conversation goes through the chat template.
    candidates: the responses, in the order of the file.
    is_chat: True where the row was a conversation; False for plain text, which no template touches
        (then `prompt` is a single message whose content is the prompt).
    target: a response that is there to be imitated beside the candidates (column y_ref), or None.
    """

    id: str
    prompt: tuple[Message, ...]
    candidates: tuple[Candidate, ...]
    is_chat: bool = True
    target: str | None = None


def example_to_json(example: Example) -> str:
    """One line of JSONL that `example_from_json` reads back unchanged."""
    return json.dumps(asdict(example), ensure_ascii=False)


def example_from_json(line: str) -> Example:
    """The inverse of `example_to_json`."""
    raw = json.loads(line)
    candidates = tuple(
        Candidate(**{**c, "margins": tuple(c["margins"]) if c["margins"] is not None else None})
        for c in raw["candidates"]
    )
    prompt = tuple(Message(**m) for m in raw["prompt"])
    return Example(raw["id"], prompt, candidates, raw["is_chat"], raw.get("target"))


def write_jsonl(path: str | Path, examples: Iterable[Example]) -> None:
    """One example a line, UTF-8."""
    with open(path, "w", encoding="utf-8") as file:
        for example in examples:
            file.write(example_to_json(example) + "\n")


def read_jsonl(path: str | Path) -> Iterator[Example]:
    """The examples of a file written by `write_jsonl`; lines end at "\\n" only (U+2028 is text)."""
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield example_from_json(line)
