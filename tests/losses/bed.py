"""Responses made by hand, with every column that a method may ask for, and the units they hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from prefopt.batch import CoupledLoss, Responses, Unit, WholeStep
from prefopt.losses import make_loss
from prefopt.losses.terms import terms

VARIANTS: list[dict[str, Any]] = [
    {"name": "ulma", "positive": "beta_logloss"},
    {"name": "ulma", "positive": "pointwise_dpo", "negative": "continuous", "z": 0.3},
    {"name": "ulma", "positive": "token_mean"},
    {"name": "rrhf", "denominator": "padded", "sft": "mean_padded"},
    {"name": "rrhf", "length_penalty": 0.5, "sft": "mean_response"},
    {"name": "slic", "calibration": "margin", "regulariser": "kl_policy_to_finetuned"},
    {"name": "slic", "calibration": "list_rank", "regulariser": "kl_finetuned_to_policy"},
    {"name": "slic", "calibration": "reward", "regulariser": "none"},
    {"name": "slic", "calibration": "list_rank", "target": "y_ref"},
    {"name": "slic", "calibration": "reward", "target": "y_ref", "regulariser": "kl_finetuned_to_policy"},
    {"name": "reward_bt", "center": 0.1, "margin": "column"},
    {"name": "mix", "parts": [{"name": "kto"}, {"name": "rrhf", "weight": 0.5}]},
]
"""Settings that change what a method computes or needs; each method's defaults are asked of anyway."""


@dataclass(frozen=True)
class Row:
    """One response: its token log-probabilities and its columns. Everything that is not given follows from the tokens,
    so that a row keeps its columns wherever it stands."""

    tokens: tuple[float, ...]
    reference: float | None = None
    label: bool = True
    score: float = 1.0
    margins: tuple[float, ...] = (0.0,)

    @property
    def reference_tokens(self) -> list[float]:
        whole = sum(self.tokens) - 0.5 if self.reference is None else self.reference
        return [whole / len(self.tokens)] * len(self.tokens)


def make(examples: Sequence[Sequence[Row]], pairs: Sequence[tuple[int, int]] | None = None) -> Responses:
    """Examples of rows, the best one first. The token log-probabilities are one leaf, float64.

    pairs: as rows of the whole; None pairs the first row of each example with each later one.
    The last row of each example is its target too; the prompts' tokens are -0.5 each, one per example.
    """
    rows = [row for example in examples for row in example]
    starts = [sum(len(e) for e in examples[:n]) for n in range(len(examples))]
    if pairs is None:
        pairs = [(s, s + n) for s, e in zip(starts, examples, strict=True) for n in range(1, len(e))]
    tokens = torch.tensor([t for r in rows for t in r.tokens], dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([len(r.tokens) for r in rows])
    row = torch.repeat_interleave(torch.arange(len(rows)), lengths)
    reference = torch.tensor([t for r in rows for t in r.reference_tokens], dtype=torch.float64)
    sums = torch.zeros(len(rows), dtype=torch.float64)
    return Responses(
        token_logps=tokens,
        row=row,
        logps=sums.index_add(0, row, tokens),
        lengths=lengths,
        example=torch.tensor([n for n, e in enumerate(examples) for _ in e]),
        prompt_lengths=torch.full((len(examples),), 4),
        pairs=torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2),
        best=torch.tensor(starts),
        targets=torch.tensor([s + len(e) - 1 for s, e in zip(starts, examples, strict=True)]),
        prompt_logps=torch.full((len(examples),), -0.5, dtype=torch.float64),
        reference_logps=sums.index_add(0, row, reference),
        reference_token_logps=reference,
        labels=torch.tensor([r.label for r in rows]),
        scores=torch.tensor([r.score for r in rows], dtype=torch.float64),
        margins=torch.tensor([r.margins for r in rows], dtype=torch.float64),
        forward_kl=(0.1 + 0.01 * tokens.detach() ** 2) * torch.exp(tokens - tokens.detach()),
        reverse_kl=(0.2 + 0.02 * tokens.detach() ** 2) * torch.exp(tokens - tokens.detach()),
        collision=0.5 * tokens.detach(),
        kl=torch.tensor(0.3, dtype=torch.float64),
        rewards=sums.index_add(0, row, tokens) / 10,
    )


def two(chosen: Sequence[float], rejected: Sequence[float], reference: tuple[float, float]) -> Responses:
    """One pair, the chosen one labelled desirable and scored 1, the other undesirable and scored 0."""
    rows = (Row(tuple(chosen), reference[0], True, 1.0), Row(tuple(rejected), reference[1], False, 0.0))
    return make([rows])


COLUMNS = {
    "reference": "reference_logps",
    "reference_tokens": "reference_token_logps",
    "labels": "labels",
    "scores": "scores",
    "ranking": "scores",
    "probabilities": "scores",
    "margins": "margins",
    "targets": "targets",
    "forward_kl": "forward_kl",
    "reverse_kl": "reverse_kl",
    "collision": "collision",
    "kl": "kl",
    "rewards": "rewards",
    "prompt_logps": "prompt_logps",
}
"""The field of `Responses` that holds what a need asks for."""


def without_others(r: Responses, needs: frozenset[str]) -> Responses:
    """`r` with the columns that `needs` list and no other."""
    asked = {COLUMNS[need] for need in needs if need in COLUMNS}
    return replace(r, **{column: None for column in COLUMNS.values() if column not in asked})


def changed(r: Responses, need: str) -> Responses:
    """`r` with another column for `need`."""
    column = getattr(r, COLUMNS[need])
    if need == "labels":
        other = ~column
    elif need == "targets":
        other = r.best
    elif need in ("scores", "ranking", "probabilities"):
        other = 1 - column
    else:
        random = torch.Generator().manual_seed(1)
        other = column + torch.rand(column.shape, generator=random, dtype=column.dtype)
    return replace(r, **{COLUMNS[need]: other})


def coupled(settings: dict, r: Responses) -> Responses:
    """`r` as the loss sees it where it is the whole step."""
    loss = make_loss(settings)
    if "step" not in loss.needs:
        return r
    observing: CoupledLoss = loss  # type: ignore[assignment]
    values = observing.observe(r).detach()
    return replace(r, whole_step=WholeStep(values, slice(0, len(values))))


def counts(r: Responses) -> dict[Unit, int]:
    """Units of responses that are the whole step."""
    imitated = r.imitated_token_logps.shape[0]
    labels = torch.zeros(len(r.lengths), dtype=torch.bool) if r.labels is None else r.labels
    return {
        Unit.TOKEN: imitated,
        Unit.SEQUENCE_TOKEN: imitated + (0 if r.prompt_logps is None else r.prompt_logps.shape[0]),
        Unit.RESPONSE: len(r.lengths),
        Unit.DESIRABLE: int(labels.sum()),
        Unit.UNDESIRABLE: int((~labels).sum()),
        Unit.DESIRABLE_TOKEN: int(r.lengths[labels].sum()),
        Unit.PAIR: len(r.pairs),
        Unit.EXAMPLE: len(r.best),
    }


def total(settings: dict, r: Responses) -> torch.Tensor:
    """The loss of responses that are the whole step."""
    return terms(make_loss(settings), coupled(settings, r)).total(counts(r))


def value(settings: dict, r: Responses) -> float:
    return total(settings, r).item()


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
