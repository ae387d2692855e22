"""Features of style for a comparison: how long an answer is, and how dense headers, lists and bold text are in it.

Of Arena-Hard (utils/add_markdown_info.py and show_result.py), with m the model's and b the baseline's answer, t tokens:

    length    (t_m - t_b) / (t_m + t_b)
    markdown  for each of headers, lists, bold, with density d = number / t:  (d_m - d_b) / (d_m + d_b + 1)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefopt.data.files import READERS, reader_of
from prefopt.errors import UserError

Style = tuple[float, float, float, float]
"""Tokens, headers, list items, bold parts of an answer."""

FEATURES = {"length": ("length",), "markdown": ("headers", "lists", "bold")}
"""Setting to the features that it stands for."""

_CODE = re.compile(r"```[^`]*```")
_HEADER = re.compile(r"^#{1,6}\s", re.MULTILINE)
_ITEM = re.compile(r"^\s*(?:\d+\.|[-*+])\s", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


def style_of(text: str) -> Style:
    """Of an answer without metadata: code blocks aside, and a token for every 4 characters, at least one."""
    plain = _CODE.sub("", text)
    counts = (len(pattern.findall(plain)) for pattern in (_HEADER, _ITEM, _BOLD))
    return (max(1.0, len(text) / 4), *(float(count) for count in counts))  # type: ignore[return-value]


def read_styles(paths: Mapping[str, str]) -> tuple[dict[str, dict[str, Style]], bool]:
    """Model to question to style, and whether all of it is from the files' own metadata.

    paths: model to its file of answers. Metadata are taken where every answer of every file has them, so that tokens of
    a tokenizer are never compared with characters.

    Raises: UserError for a file of answers that is none.
    """
    from prefopt.evaluate.answer_files import read_answers

    told = {name: _metadata(Path(path).expanduser()) for name, path in paths.items()}
    if all(style is not None for styles in told.values() for style in styles.values()):
        return {name: {uid: s for uid, s in styles.items() if s} for name, styles in told.items()}, True
    read = {name: read_answers(Path(path).expanduser()) for name, path in paths.items()}
    return {name: {a.id: style_of(a.response) for a in answers} for name, answers in read.items()}, False


def features(model: Style, baseline: Style, names: Sequence[str]) -> list[float]:
    """The features that `names`, of "length" and "markdown", stand for, in that order."""
    total = model[0] + baseline[0]
    found: list[float] = [(model[0] - baseline[0]) / total] if "length" in names else []
    if "markdown" in names:
        for place in (1, 2, 3):
            dense, base = model[place] / model[0], baseline[place] / baseline[0]
            found.append((dense - base) / (dense + base + 1))
    return found


def _metadata(path: Path) -> dict[str, Style | None]:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file of answers", "model_answer/MODEL.jsonl of Arena-Hard")
    reader = reader_of(path, {name: read for name, read in READERS.items() if ".json" in name})
    if reader is None:
        raise UserError(f"{path}: answers are read from .json and .jsonl, gzipped or not", "rename or convert it")
    return {str(row.value.get("uid", row.id)): _told(row.value.get("metadata")) for row in reader(path, str(path))}


def _told(metadata: Any) -> Style | None:
    """What metadata say; None where they lack something, or say that an answer has no token."""
    if not isinstance(metadata, Mapping):
        return None
    values: list[float] = []
    for key in ("token_len", "header_count", "list_count", "bold_count"):
        value = metadata.get(key)
        numbers: list[Any] = list(value.values()) if isinstance(value, Mapping) else [value]
        if not all(isinstance(number, int | float) for number in numbers):
            return None
        values.append(float(sum(numbers)))
    return (max(1.0, values[0]), values[1], values[2], values[3])
