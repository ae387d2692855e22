"""A row as it was read, and the readers of its fields: whatever is not what it should be makes the row `Unusable`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from prefopt.errors import UserError


class Row(NamedTuple):
    """One record of a source.

    file: the source's short name, for messages. number: its line (JSONL) or place (other files), from 1.
    value: its columns.
    """

    file: str
    number: int
    value: dict[str, Any]

    @property
    def id(self) -> str:
        """For instance "train.jsonl:17"."""
        return f"{self.file}:{self.number}"


class Unusable(Exception):
    """This row cannot be trained on and is left out.

    reason: one of a few short phrases, by which rows are counted. detail: what was seen in this row.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def kind_of(value: Any) -> str:
    """A value's type in a reader's words."""
    if isinstance(value, Mapping):
        return "an object"
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), f"a {type(value).__name__}")


def present(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column that has to be there.

    Raises: Unusable where it is absent or null.
    """
    value = row.get(column)
    if value is None:
        raise Unusable(f"missing {column}", "null" if column in row else "no such field")
    return value


LABELS = ("label", "kto_tag")
"""Columns that say whether a lone response is desirable: ours, TRL's and LLaMA-Factory's."""


def label_of(row: Mapping[str, Any]) -> Any:
    """What a row says of its lone response; None where it says nothing."""
    return next((row[name] for name in LABELS if row.get(name) is not None), None)


def as_text(value: Any, column: str) -> str:
    """`value` where it is a string that can be encoded as UTF-8.

    Raises: Unusable for anything else. (JSON can spell half of a surrogate pair, which no tokenizer takes.)
    """
    if not isinstance(value, str):
        raise Unusable(f"{column} is not a string", f"it is {kind_of(value)}")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Unusable(f"{column} is not valid text", f"half a surrogate pair at character {error.start}") from None
    return value


def text(row: Mapping[str, Any], column: str) -> str:
    """The string in a column. Raises: Unusable."""
    return as_text(present(row, column), column)


def as_number(value: Any, column: str) -> float:
    """`value` as a finite number; CSV files write numbers as strings. Raises: Unusable."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise Unusable(f"{column} is not a number", f"it is {value[:40]!r}") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unusable(f"{column} is not a number", f"it is {kind_of(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Unusable(f"{column} is not finite", str(value)[:40])
    return number


def as_flag(value: Any, column: str) -> bool:
    """`value` as yes or no: a boolean, 0 or 1, or one of these written out, as CSV does. Raises: Unusable."""
    if isinstance(value, bool):
        return value
    words = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
    word = str(value).strip().lower()
    if not isinstance(value, str | int | float) or word not in words:
        raise Unusable(f"{column} is not true or false", f"it is {kind_of(value)}")
    return words[word]


def as_list(value: Any, column: str) -> list[Any]:
    """`value` where it is a list. Raises: Unusable."""
    if not isinstance(value, list):
        raise Unusable(f"{column} is not a list", f"it is {kind_of(value)}")
    return value


def as_object(value: Any, place: str) -> dict[str, Any]:
    """A parsed JSON value that has to be a row.

    place: file and line, for the message.

    Raises: UserError, because a file of something else than objects is the wrong file.
    """
    if not isinstance(value, dict):
        raise UserError(f"{place}: a row must be an object with named columns, not {kind_of(value)}")
    return value


def as_object_or_prompt(value: Any, place: str) -> dict[str, Any]:
    """The same where rows are prompts: a string alone is the column `prompt`. Raises: as `as_object`."""
    return {"prompt": value} if isinstance(value, str) else as_object(value, place)
