"""A set with its scores, and what a method makes of each row: one row at a time, so that rows can be drawn anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from prefopt.batch import CoupledLoss, Loss, Responses, WholeStep
from prefopt.data.dataset import EncodedSet
from prefopt.evaluate.row_scores import BY_TOKEN
from prefopt.losses.terms import terms


class Term(NamedTuple):
    """A term of a method's loss. sums, counts [E]: of the values of each row, and how many there are."""

    weight: float
    sums: np.ndarray
    counts: np.ndarray


class Judgement(NamedTuple):
    """What a method makes of a set. rewards [R]. terms: by name."""

    rewards: np.ndarray
    terms: Mapping[str, Term]


@dataclass(frozen=True)
class ScoredSet:
    """data: the rows. policy: the columns of the model that is measured, `score_rows` says which. reference: those of
    the reference, or None. kl: mean log-ratio of responses to other prompts, for the methods that ask for it.
    """

    data: EncodedSet
    policy: Mapping[str, np.ndarray]
    reference: Mapping[str, np.ndarray] | None = None
    kl: float | None = None

    @cached_property
    def rows(self) -> list:
        """The encoded rows, read once."""
        return [self.data[place] for place in range(len(self.data))]

    @cached_property
    def example(self) -> np.ndarray:
        """[R] the row of each response."""
        return np.repeat(np.arange(len(self.data)), np.diff(self.data.response_offsets))

    @cached_property
    def pairs(self) -> np.ndarray:
        """[P, 2] (chosen, rejected) as places among all responses of the set."""
        starts = self.data.response_offsets
        found = [
            (starts[place] + chosen, starts[place] + rejected)
            for place, row in enumerate(self.rows)
            for chosen, rejected in row.pairs
        ]
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    @cached_property
    def best(self) -> np.ndarray:
        """[E] the response that an NLL imitates."""
        return self.data.response_offsets[:-1] + np.array([row.best for row in self.rows], dtype=np.int64)

    @cached_property
    def labels(self) -> np.ndarray | None:
        """[R] desirable or not, where every row says so."""
        if any(row.labels is None for row in self.rows):
            return None
        return np.array([label for row in self.rows for label in row.labels], dtype=bool)

    def judge(self, loss: Loss) -> Judgement:
        """What the method gives to each row; terms that couple rows see the whole set, as in training's evaluation."""
        every = list(self._responses())
        with torch.no_grad():
            if "step" in loss.needs:
                every = _coupled(cast(CoupledLoss, loss), every)
            outputs = [terms(loss, responses) for responses in every]
        found = {}
        for number, component in enumerate(outputs[0].components):
            values = [output.components[number].values for output in outputs]
            sums = np.array([float(v.double().sum()) for v in values])
            found[component.name] = Term(component.weight, sums, np.array([float(len(v)) for v in values]))
        return Judgement(torch.cat([output.rewards.double() for output in outputs]).numpy(), found)

    def _responses(self) -> Iterator[Responses]:
        """Each row by itself as a loss takes it."""
        tokens = np.concatenate(([0], np.cumsum(self.policy["lengths"])))
        prompt_tokens = np.concatenate(([0], np.cumsum(self.policy["prompt_counts"])))
        offsets = self.data.response_offsets
        for place, row in enumerate(self.rows):
            own = slice(int(offsets[place]), int(offsets[place + 1]))
            by_token = slice(int(tokens[own.start]), int(tokens[own.stop]))
            by_prompt = slice(int(prompt_tokens[place]), int(prompt_tokens[place + 1]))
            lengths = _tensor(self.policy["lengths"][own])
            token_logps, *kls = (self._by_token(name, by_token) for name in BY_TOKEN)
            rewards = _tensor(self.policy["rewards"][own]) if "rewards" in self.policy else None
            whose = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
            reference = self.reference
            yield Responses(
                token_logps=torch.zeros(0) if token_logps is None else token_logps,
                row=whose if rewards is None else whose[:0],
                logps=_tensor(self.policy["logps"][own]) if rewards is None else torch.full(lengths.shape, torch.nan),
                lengths=lengths,
                example=torch.zeros_like(lengths),
                pairs=torch.tensor(row.pairs, dtype=torch.int64).reshape(-1, 2),
                best=torch.tensor([row.best]),
                prompt_lengths=_tensor(self.policy["prompt_lengths"][place : place + 1]),
                targets=None if row.target is None else torch.tensor([row.target]),
                prompt_logps=_tensor(self.policy["prompt_logps"][by_prompt]) if rewards is None else None,
                reference_logps=None if reference is None else _tensor(reference["logps"][own]),
                reference_token_logps=None if reference is None else _tensor(reference["token_logps"][by_token]),
                labels=None if row.labels is None else torch.tensor(row.labels),
                scores=None if row.scores is None else torch.tensor(row.scores, dtype=torch.float64),
                margins=None if row.margins is None else torch.tensor(row.margins, dtype=torch.float64),
                kl=None if self.kl is None else torch.tensor(self.kl, dtype=torch.float64),
                forward_kl=kls[0],
                reverse_kl=kls[1],
                collision=kls[2],
                rewards=rewards,
            )

    def _by_token(self, name: str, own: slice) -> Tensor | None:
        return _tensor(self.policy[name][own]) if name in self.policy else None


def _coupled(loss: CoupledLoss, every: list[Responses]) -> list[Responses]:
    """The same, each with what the loss observes of all."""
    observed = [loss.observe(responses) for responses in every]
    whole = torch.cat(observed)
    stops = np.cumsum([len(values) for values in observed]).tolist()
    return [
        replace(responses, whole_step=WholeStep(whole, slice(stop - len(values), stop)))
        for responses, values, stop in zip(every, observed, stops, strict=True)
    ]


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
