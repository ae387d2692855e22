"""The structures that flow between data, model, loss and step.

Shapes: T tokens on the axis, N response tokens, Q prompt tokens that are predicted, R responses, P pairs, E examples
(prompts), M margins. A response's tokens include its EOS. torch is needed by whoever makes these, not to import them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Unit(StrEnum):
    """What a loss term is averaged over. The step divides by the count over all micro-batches and ranks."""

    TOKEN = "token"  # response tokens of the best rows: what an NLL imitates
    SEQUENCE_TOKEN = "sequence_token"  # the same and the tokens of their prompts, from the second on
    RESPONSE = "response"
    DESIRABLE = "desirable"  # responses whose label is true
    UNDESIRABLE = "undesirable"  # responses whose label is false
    DESIRABLE_TOKEN = "desirable_token"  # tokens of responses whose label is true
    PAIR = "pair"
    EXAMPLE = "example"


@dataclass(frozen=True)
class Encoded:
    """One example as token ids, ready to be packed.

    id: names the row in reports. index: its place in the encoded data set, by which cached columns are found.
    prompt: token ids [n]. responses: k lists of token ids, EOS included where the response is whole.
    pairs: (chosen, rejected) as places in `responses`. best: the place an NLL imitates.
    labels, scores, margins, reference_logps: one entry per response, or None. reference_token_logps: one per token.
    target: the place of the response that is there to be imitated (column y_ref), or None. Where it is none of the
    candidates it stands behind them with a score and margins of 0.0, which say nothing.
    given: how many tokens at the beginning of each response are read and not predicted, or None for 0.
    """

    id: str
    index: int
    prompt: list[int]
    responses: list[list[int]]
    pairs: list[tuple[int, int]]
    best: int
    labels: list[bool] | None = None
    scores: list[float] | None = None
    margins: list[list[float]] | None = None
    target: int | None = None
    given: list[int] | None = None
    reference_logps: list[float] | None = None
    reference_token_logps: list[list[float]] | None = None


class Span(NamedTuple):
    """Places start..stop-1 on the token axis; empty where start == stop."""

    start: int
    stop: int


class Segment(NamedTuple):
    """A prompt on the token axis and the responses that continue it. Attention never leaves a segment.

    A response's last token predicts nothing and is not on the axis, so its span is one shorter than its length (except
    in a batch for a scalar head, which reads the reward there).
    """

    prompt: Span
    responses: tuple[Span, ...]


@dataclass(frozen=True)
class Batch:
    """R responses to E prompts on one token axis.

    | field | shape | meaning |
    |---|---|---|
    | input_ids, position_ids | [T] | each response continues its own prompt's positions |
    | segments | list | where each prompt and its responses lie: what attention needs |
    | predictor, target, row | [N] | which place predicts response token n, which token it is, which response owns it |
    | last | [R] or None | where each response's last token lies, for a scalar head |
    | prompt_predictor, prompt_target, prompt_example | [Q] | the same for prompt tokens from the second on |
    | lengths, example | [R] | predicted tokens of the response, EOS included; its prompt |
    | prompt_lengths | [E] | tokens of the prompt |
    | pairs | [P, 2] | rows (chosen, rejected), any number per prompt |
    | best | [E] | the row that an NLL imitates |
    | targets | [E] or None | the row that is there to be imitated (column y_ref) |
    | labels, scores, margins, reference_logps | [R], [R], [R, M], [R] | optional columns; log-probabilities in nats |
    | reference_token_logps | [N] | the same for every response token, optional |
    | ids | E strings | names of the data rows, for messages |
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: tuple[Segment, ...]
    predictor: Tensor
    target: Tensor
    row: Tensor
    prompt_predictor: Tensor
    prompt_target: Tensor
    prompt_example: Tensor
    lengths: Tensor
    example: Tensor
    prompt_lengths: Tensor
    pairs: Tensor
    best: Tensor
    ids: tuple[str, ...]
    targets: Tensor | None = None
    last: Tensor | None = None
    labels: Tensor | None = None
    scores: Tensor | None = None
    margins: Tensor | None = None
    reference_logps: Tensor | None = None
    reference_token_logps: Tensor | None = None

    def count(self, unit: Unit) -> int:
        """How many of `unit` this batch holds; a Python int, so no device is asked unless the lengths live there."""
        if unit is Unit.PAIR:
            return self.pairs.shape[0]
        if unit is Unit.RESPONSE:
            return self.lengths.shape[0]
        if unit is Unit.EXAMPLE:
            return self.best.shape[0]
        if unit in (Unit.DESIRABLE, Unit.UNDESIRABLE, Unit.DESIRABLE_TOKEN):
            return self._count_labelled(unit)
        imitated = int(self.lengths[self.best].sum())
        return imitated if unit is Unit.TOKEN else imitated + self.prompt_target.shape[0]

    def _count_labelled(self, unit: Unit) -> int:
        if self.labels is None:
            return 0
        if unit is Unit.DESIRABLE_TOKEN:
            return int(self.lengths[self.labels].sum())
        num_desirable = int(self.labels.sum())
        return num_desirable if unit is Unit.DESIRABLE else self.labels.shape[0] - num_desirable

    def counts(self) -> dict[Unit, int]:
        """`count` of every unit."""
        return {unit: self.count(unit) for unit in Unit}

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on `device`. The host does not wait for copies to a GPU."""
        to_gpu = str(device).startswith("cuda")
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=to_gpu))

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU can fetch by itself."""
        return self._with_tensors(lambda tensor: tensor.pin_memory())

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {
            f.name: change(value) for f in fields(self) if hasattr(value := getattr(self, f.name), "to")
        }
        return replace(self, **changed)


class MicroBatch(NamedTuple):
    """A batch, and whether it counts: a rank with nothing left runs one that does not, so that no rank waits."""

    batch: Batch
    real: bool


class Outputs(NamedTuple):
    """What a policy's forward gives: float32 or better.

    token_logps [N], prompt_logps [Q]: log-probabilities, nats.
    rewards [R]: of a scalar head, which gives no log-probabilities (N = 0).
    collision, forward_kl, reverse_kl [N]: as in `Responses`, where they were asked for.
    """

    token_logps: Tensor
    prompt_logps: Tensor
    rewards: Tensor | None = None
    collision: Tensor | None = None
    forward_kl: Tensor | None = None
    reverse_kl: Tensor | None = None

    @property
    def probe(self) -> Tensor:
        """What tells one model from another: [N] log-probabilities, or [R] rewards of a scalar head."""
        return self.token_logps if self.rewards is None else self.rewards


class WholeStep(NamedTuple):
    """What a loss observed in every micro-batch of the step, on every rank, detached.

    values [K, m]: as its `observe` gave them, one row per thing observed. own: those of the micro-batch at hand.
    """

    values: Tensor
    own: slice


@dataclass(frozen=True)
class Responses:
    """All that a loss may see.

    token_logps [N] float32: log p(token | everything before it), response tokens only. row [N]: its response.
    logps [R] float64: their sums, in nats. lengths [R]: how many. example [R]: the prompt. prompt_lengths [E]: its
    tokens. pairs [P, 2], best [E], targets [E]: rows.
    prompt_logps [Q] float32: the same for prompt tokens, where a loss asked for them (`needs` has "prompt_logps").
    reference_logps [R] float64, reference_token_logps [N], labels [R] bool, scores [R], margins [R, M]: columns of the
    data, where they exist.

    With these needs:
    forward_kl, reverse_kl [N] float32: KL(reference || policy) and KL(policy || reference) at each response token.
    collision [N] float32: log sum over the vocabulary of p^2, no gradient.
    kl []: mean over the whole step of policy minus reference log-probability of responses to other prompts; no
    gradient, may be negative. whole_step: what the loss observed.
    rewards [R] float32: of a scalar head; then there are no log-probabilities: token_logps is empty and logps are NaN.
    """

    token_logps: Tensor
    row: Tensor
    logps: Tensor
    lengths: Tensor
    example: Tensor
    pairs: Tensor
    best: Tensor
    prompt_lengths: Tensor | None = None
    targets: Tensor | None = None
    prompt_logps: Tensor | None = None
    reference_logps: Tensor | None = None
    reference_token_logps: Tensor | None = None
    labels: Tensor | None = None
    scores: Tensor | None = None
    margins: Tensor | None = None
    forward_kl: Tensor | None = None
    reverse_kl: Tensor | None = None
    collision: Tensor | None = None
    kl: Tensor | None = None
    whole_step: WholeStep | None = None
    rewards: Tensor | None = None

    @property
    def mean_logps(self) -> Tensor:
        """[R] nats per token."""
        return self.logps / self.lengths

    @property
    def logratios(self) -> Tensor:
        """[R] policy minus reference, nats."""
        assert self.reference_logps is not None, "the method must list 'reference' among its needs"
        return self.logps - self.reference_logps

    def paired(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """`values` [R] of the chosen and of the rejected row of each pair: two tensors [P]."""
        return values[self.pairs[:, 0]], values[self.pairs[:, 1]]

    def summed(self, token_values: Tensor) -> Tensor:
        """[R] float64: `token_values` [N] added up over each response."""
        sums = token_values.new_zeros(self.lengths.shape[0], dtype=self.logps.dtype)
        return sums.index_add(0, self.row, token_values.to(sums.dtype))

    @property
    def ranked_pairs(self) -> Tensor:
        """[K, 2] rows (higher, lower) of every two responses to one prompt whose scores differ."""
        assert self.scores is not None, "the method must list 'ranking' among its needs"
        same = self.example[:, None] == self.example[None, :]
        return (same & (self.scores[:, None] > self.scores[None, :])).nonzero()

    def per_example(self, values: Tensor, rows: Tensor) -> Tensor:
        """[E] `values` added up over each prompt. rows: for each value a row of the prompt it belongs to."""
        return values.new_zeros(self.best.shape[0]).index_add(0, self.example[rows], values)

    @property
    def imitated_token_logps(self) -> Tensor:
        """The response tokens of the best rows: what Unit.TOKEN counts."""
        is_best = self.lengths.new_zeros(self.lengths.shape[0])
        is_best[self.best] = 1
        return self.token_logps[is_best[self.row] == 1]


class Component(NamedTuple):
    """One term of a loss.

    name: for the log. values: unreduced, one per unit. unit: what they are counted in. weight: its factor in the loss.
    Values of EXAMPLE are in the order of the examples, of PAIR of the pairs, of RESPONSE, DESIRABLE and UNDESIRABLE of
    the rows; those of tokens in any order.
    """

    name: str
    values: Tensor
    unit: Unit
    weight: float = 1.0


class LossOutput(NamedTuple):
    """components: the terms; the loss is the sum of weight * mean over units. rewards [R]: detached, for the log."""

    components: tuple[Component, ...]
    rewards: Tensor

    def total(self, counts: Mapping[Unit, int]) -> Tensor:
        """The scalar to differentiate: sum over components of weight * sum of values / counts[unit].

        counts: units in the whole optimiser step, over all micro-batches and ranks, so that the totals of the
        micro-batches add up to the loss of the step however it was cut. A unit that nobody has contributes 0.
        """
        terms = [c.weight * c.values.sum() / max(1, counts[c.unit]) for c in self.components]
        return sum(terms[1:], terms[0])


class Loss(Protocol):
    """A method: a frozen dataclass of settings that is a pure function of `Responses`."""

    @property
    def needs(self) -> frozenset[str]:
        """What it asks of data and model, drawn from `prefopt.needs.NEEDS`."""

    def __call__(self, responses: Responses) -> LossOutput:
        """The terms for these responses."""


@runtime_checkable
class WeighsMargins(Protocol):
    """A method for which the data must have a certain number of margins."""

    @property
    def num_margins(self) -> int:
        """How many margins each response must have; 0 where none is used."""


@runtime_checkable
class HasNotes(Protocol):
    """A method that has something to say of its settings."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told of these settings, a sentence each."""


class CoupledLoss(Loss, Protocol):
    """A method whose value for one response depends on the others of the step: its `needs` have "step"."""

    def observe(self, responses: Responses) -> Tensor:
        """[K, m] what it must know of these responses when it computes others of the step; no gradients."""
