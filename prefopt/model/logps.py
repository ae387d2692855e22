"""What a vocabulary's distribution says of each token, from hidden states, in float32 or better, in chunks."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

MAX_LOGITS = 2**26
"""Most logits held at once (256 MiB of float32). Beyond it the head runs in chunks and again in the backward pass."""

ASKS = ("collision", "forward_kl", "reverse_kl")
"""What can be asked for besides the log-probability; see `prefopt.batch.Responses`."""

Head = Callable[[Tensor], Tensor]


Agree = Callable[[int], int]
"""A number of this rank to the largest of all ranks. Where weights are sharded, each call of the head is an exchange
that every rank must take part in, however few tokens it has."""


def alone(number: int) -> int:
    """`Agree` where the head's weights are whole on every rank."""
    return number


class States(NamedTuple):
    """Hidden states [N, H] and the head that turns them into logits, with whatever the model does to them."""

    hidden: Tensor
    head: Head


def chosen_logps(states: States, target: Tensor, vocabulary: int, agree: Agree = alone) -> Tensor:
    """log p(target) for each row: target [N] -> [N].

    vocabulary: columns of the head. The log-softmax is float32 even where the model is bfloat16 (float64 stays so).
    """
    return token_values(states, target, vocabulary, agree=agree)["logps"]


def token_values(
    states: States,
    target: Tensor,
    vocabulary: int,
    asks: frozenset[str] = frozenset(),
    reference: States | None = None,
    agree: Agree = alone,
) -> dict[str, Tensor]:
    """ "logps" and each of `asks` (from `ASKS`) for every row: [N] each. reference: for the divergences."""
    names = ("logps", *(ask for ask in ASKS if ask in asks))
    # The divergences hold two distributions and their products besides.
    rows = max(1, MAX_LOGITS // vocabulary // (4 if asks else 1))
    others = None if reference is None else reference.hidden
    other_head = None if reference is None else reference.head
    num_chunks = agree(ceil(states.hidden.shape[0] / rows))
    if num_chunks <= 1:
        return dict(zip(names, _values(states.hidden, target, others, states.head, other_head, names), strict=True))
    parts = [
        checkpoint(_values, h, t, o, states.head, other_head, names, use_reentrant=False)
        for h, t, o in zip(
            states.hidden.tensor_split(num_chunks),
            target.tensor_split(num_chunks),
            [None] * num_chunks if others is None else others.tensor_split(num_chunks),
            strict=True,
        )
    ]
    return {name: torch.cat(values) for name, values in zip(names, zip(*parts, strict=True), strict=True)}


def _values(
    hidden: Tensor,
    target: Tensor,
    reference_hidden: Tensor | None,
    head: Head,
    reference_head: Head | None,
    names: tuple[str, ...],
) -> tuple[Tensor, ...]:
    logits = _precise(head(hidden))
    if names == ("logps",):
        return (-cross_entropy(logits, target, reduction="none"),)
    log_p = logits.log_softmax(-1)
    found = {"logps": log_p.gather(1, target[:, None]).squeeze(1)}
    if "collision" in names:
        found["collision"] = (2 * log_p.detach()).logsumexp(-1)
    if reference_hidden is not None and reference_head is not None:
        with torch.no_grad():
            log_q = _precise(reference_head(reference_hidden)).log_softmax(-1)
        if "forward_kl" in names:
            found["forward_kl"] = (log_q.exp() * (log_q - log_p)).sum(-1)
        if "reverse_kl" in names:
            found["reverse_kl"] = (log_p.exp() * (log_p - log_q)).sum(-1)
    return tuple(found[name] for name in names)


def _precise(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
