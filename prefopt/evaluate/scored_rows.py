"""Pairs with what a model said of both responses: rows.jsonl of `measure=preferences`, read by `measure=likelihood`.

A line is a row of the data, with its responses and its pairs as places among them, (chosen, rejected):

    {"id": "heldout.jsonl:7", "set": "heldout", "category": "chat", "pairs": [[0, 1]], "responses": [
     {"tokens": 23, "logps": -41.5, "reference_logps": -40.25, "reward": -0.125},
     {"tokens": 31, "logps": -60.0, "reference_logps": -52.5, "reward": -0.75}]}

category, logps, reference_logps and reward may be null or absent. Further keys are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
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

    id: names the pair within its set: the row's, for instance "heldout.jsonl:7", and where the row has several pairs
    their places behind it, "heldout.jsonl:7#0>2". row: the row's id.
    """

    id: str
    set: str
    category: str | None
    chosen: ScoredResponse
    rejected: ScoredResponse
    row: str


def pairs_from_json(value: Mapping[str, Any], place: str) -> list[ScoredPair]:
    """The pairs of a line. place: file and line, for messages.

    Raises: UserError naming the place and the key that is missing or of another type.
    """
    for key in ("id", "set"):
        if not isinstance(value.get(key), str):
            raise _wrong(place, key, value, "text")
    category = value.get("category")
    if category is not None and not isinstance(category, str):
        raise _wrong(place, "category", value, "text or null")
    for key in ("responses", "pairs"):
        if not isinstance(value.get(key), list):
            raise _wrong(place, key, value, "a list")
    responses = [_response(one, number, place) for number, one in enumerate(value["responses"])]
    name, found = value["id"], []
    for pair in value["pairs"]:
        if not _are_places(pair, len(responses)):
            raise UserError(f"{place}: pairs must be two places each among {len(responses)} responses", MADE_BY)
        chosen, rejected = pair
        own = name if len(value["pairs"]) == 1 else f"{name}#{chosen}>{rejected}"
        found.append(ScoredPair(own, value["set"], category, responses[chosen], responses[rejected], name))
    return found


def read_scored_pairs(path: Path) -> list[ScoredPair]:
    """Every pair of a file (.gz or not), in its order.

    Raises: UserError for a line of another kind, a pair twice in a set, or a file without any; RunError where the
    file cannot be read.
    """
    pairs: dict[tuple[str, str], ScoredPair] = {}
    for row in read_jsonl(path, path.name):
        place = f"{path}:{row.number}"
        for pair in pairs_from_json(row.value, place):
            if (pair.set, pair.id) in pairs:
                raise UserError(f"{place}: set {pair.set!r} has the pair {pair.id!r} twice", "leave one of the two out")
            pairs[pair.set, pair.id] = pair
    if not pairs:
        raise UserError(f"{path}: has no pairs", MADE_BY)
    return list(pairs.values())


def _are_places(pair: Any, count: int) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(place, int) and not isinstance(place, bool) and 0 <= place < count for place in pair)
    )


def _response(value: Any, number: int, place: str) -> ScoredResponse:
    name = f"responses.{number}"
    if not isinstance(value, Mapping):
        raise UserError(f"{place}: {name} must be an object with tokens; it is {kind_of(value)}", MADE_BY)
    tokens = value.get("tokens")
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise _wrong(place, f"{name}.tokens", value, "a whole number, 1 or more")
    logps, reference, reward = (_number(value, name, key, place) for key in ("logps", "reference_logps", "reward"))
    return ScoredResponse(logps, tokens, reference, reward)


def _number(value: Mapping[str, Any], name: str, key: str, place: str) -> float | None:
    number = value.get(key)
    if number is None:
        return None
    # A bool is an int to Python; NaN is no JSON, but Python writes and reads it.
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        raise _wrong(place, f"{name}.{key}", value, "a finite number or null")
    return float(number)


def _wrong(place: str, key: str, holder: Mapping[str, Any], wanted: str) -> UserError:
    last = key.rpartition(".")[2]
    found = holder.get(last)
    said = "missing" if last not in holder else str(found) if isinstance(found, (int, float)) else kind_of(found)
    return UserError(f"{place}: {key} must be {wanted}; it is {said}", MADE_BY)
