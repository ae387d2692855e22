"""Rows of the cases in end_to_end.json, ready to be packed, with the columns that their methods ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prefopt.batch import Encoded
from prefopt.model.forward import respond
from prefopt.model.policy import Policy
from prefopt.pack import pack


class Rows(NamedTuple):
    """encoded: what is packed. columns: fields of `Responses` that do not come from the batch."""

    encoded: list[Encoded]
    columns: dict[str, Tensor]


Load = Callable[[str], Policy]
"""A model by its name in the file: policy, reference or margin."""


def pairs_of(examples: list[dict]) -> list[Encoded]:
    return [
        Encoded(f"examples[{number}]", number, e["prompt_ids"], [e["chosen_ids"], e["rejected_ids"]], [(0, 1)], 0)
        for number, e in enumerate(examples)
    ]


def logps(policy: Policy, rows: list[Encoded]) -> list[list[float]]:
    """Of every response of every row, nats, by the packed forward."""
    with torch.no_grad():
        found = iter(respond(policy, pack(rows)).logps.tolist())
    return [[next(found) for _ in row.responses] for row in rows]


def with_reference(rows: list[Encoded], load: Load) -> list[Encoded]:
    found = logps(load("reference"), rows)
    return [replace(row, reference_logps=values) for row, values in zip(rows, found, strict=True)]


def _pairs(case: dict, examples: list[dict], load: Load) -> Rows:
    return Rows(with_reference(pairs_of(examples), load), {})


def _kto(case: dict, examples: list[dict], load: Load) -> Rows:
    """The KL is that of each row's prompt with the completion of the row before, the last one's before the first."""
    assert case["kl_completions"].startswith("completion of the previous row"), case["kl_completions"]
    rows = [replace(row, labels=[True, False]) for row in with_reference(pairs_of(examples), load)]
    before = [rows[number - 1].responses[1] for number in range(len(rows))]
    mismatched = [replace(row, responses=[last, row.responses[0]]) for row, last in zip(rows, before, strict=True)]
    policy, reference = (torch.tensor(logps(load(name), mismatched)) for name in ("policy", "reference"))
    return Rows(rows, {"kl": (policy - reference).mean()})


def _rrhf(case: dict, examples: list[dict], load: Load) -> Rows:
    """One prompt of the case's own, and its candidates."""
    scores = case["rewards"]
    best = max(range(len(scores)), key=scores.__getitem__)
    row = Encoded("candidates", 0, case["prompt_ids"], case["candidate_ids"], [], best, scores=scores)
    return Rows([row], {"scores": torch.tensor(scores, dtype=torch.float64)})


def _modpo(case: dict, examples: list[dict], load: Load) -> Rows:
    """The margin is the implicit reward of a model that another preference was trained into."""
    rows = with_reference(pairs_of(examples), load)
    beta, margins = case["hyperparameters"]["margin_beta"], logps(load("margin"), rows)
    assert all(row.reference_logps is not None for row in rows)
    return Rows(
        [
            replace(row, margins=[[beta * (m - r)] for m, r in zip(of_row, row.reference_logps or [], strict=True)])
            for row, of_row in zip(rows, margins, strict=True)
        ],
        {},
    )


_OWN: dict[str, Any] = {"kto": _kto, "rrhf": _rrhf, "modpo": _modpo}


def rows_of(case: dict, examples: list[dict], load: Load) -> Rows:
    """The rows of a case: the file's examples as pairs with reference log-probabilities, or its own."""
    return _OWN.get(case["name"], _pairs)(case, examples, load)
