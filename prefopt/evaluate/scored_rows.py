"""Pairs with what a model said of both responses: rows.jsonl of `measure=preferences`, read by `measure=likelihood`.

One pair a line:

    {"id": "heldout.jsonl:7", "set": "heldout", "category": null,
     "chosen":   {"logps": -41.5, "tokens": 23, "reference_logps": -40.25, "reward": -0.125},
     "rejected": {"logps": -60.0, "tokens": 31, "reference_logps": -52.5, "reward": -0.75}}

Further keys of a line are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefopt.data.files import read_jsonl
from prefopt.data.rows import kind_of
from prefopt.errors import UserError

MADE_BY = "give rows.jsonl of a folder that `prefopt eval measure=preferences` has written"


@dataclass(frozen=True)
class ScoredResponse:
    """One response under a model.

    logps: log-probability, nats, summed over the response's tokens, EOS included; None under a reward model, which has
    none. tokens: how many those are, 1 or more. reference_logps: the same sum under the reference, None where there is
    none. reward: as the loss defines it, or the reward model's; None where neither was given.
    """

    logps: float | None
    tokens: int
    reference_logps: float | None = None
    reward: float | None = None

    @property
    def mean_logp(self) -> float | None:
        """Nats per token."""
        return None if self.logps is None else self.logps / self.tokens


@dataclass(frozen=True)
class ScoredPair:
    """A pair by the data's label: chosen over rejected. set: the evaluation set's name. category: of the row, if any.

    id: names the row within its set, for instance "heldout.jsonl:7"; where a row has several pairs, each has its own.
    """

    id: str
    set: str
    category: str | None
    chosen: ScoredResponse
    rejected: ScoredResponse


def pair_to_json(pair: ScoredPair) -> dict[str, Any]:
    """The JSON object of a pair, for `Measured.rows`. More keys may be added to it; they are not read."""
    return asdict(pair)


def pair_from_json(value: Mapping[str, Any], place: str) -> ScoredPair:
    """The inverse of `pair_to_json`. place: file and line, for messages.

    Raises: UserError naming the place and the key that is missing or of another type.
    """
    for key in ("id", "set"):
        if not isinstance(value.get(key), str):
            raise _wrong(place, key, value, "text")
    category = value.get("category")
    if category is not None and not isinstance(category, str):
        raise _wrong(place, "category", value, "text or null")
    return ScoredPair(
        value["id"],
        value["set"],
        category,
        _response(value, "chosen", place),
        _response(value, "rejected", place),
    )


def read_scored_pairs(path: Path) -> list[ScoredPair]:
    """Every pair of a file (.gz or not), in its order.

    Raises: UserError for a line that is no pair, a pair twice in a set, or a file without any; RunError where the
    file cannot be read.
    """
    pairs: dict[tuple[str, str], ScoredPair] = {}
    for row in read_jsonl(path, path.name):
        place = f"{path}:{row.number}"
        pair = pair_from_json(row.value, place)
        if (pair.set, pair.id) in pairs:
            raise UserError(f"{place}: set {pair.set!r} has the pair {pair.id!r} twice", "leave one of the two out")
        pairs[pair.set, pair.id] = pair
    if not pairs:
        raise UserError(f"{path}: has no rows", MADE_BY)
    return list(pairs.values())


def _response(pair: Mapping[str, Any], side: str, place: str) -> ScoredResponse:
    value = pair.get(side)
    if not isinstance(value, Mapping):
        raise _wrong(place, side, pair, "an object with logps, tokens, reference_logps and reward")
    tokens = value.get("tokens")
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise _wrong(place, f"{side}.tokens", value, "a whole number, 1 or more")
    logps, reference, reward = (_number(value, side, key, place) for key in ("logps", "reference_logps", "reward"))
    return ScoredResponse(logps, tokens, reference, reward)


def _number(value: Mapping[str, Any], side: str, key: str, place: str) -> float | None:
    number = value.get(key)
    if number is None:
        return None
    # A bool is an int to Python; NaN is no JSON, but Python writes and reads it.
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        raise _wrong(place, f"{side}.{key}", value, "a finite number or null")
    return float(number)


def _wrong(place: str, key: str, holder: Mapping[str, Any], wanted: str) -> UserError:
    last = key.rpartition(".")[2]
    found = holder.get(last)
    said = "missing" if last not in holder else str(found) if isinstance(found, (int, float)) else kind_of(found)
    return UserError(f"{place}: {key} must be {wanted}; it is {said}", MADE_BY)
