"""Beam search, in groups that keep away from each other's tokens.

Vijayakumar et al. 2016, arXiv 1610.02424: at each step the groups choose one after the other, and a token that n beams
of earlier groups have just chosen for this prompt loses n times the penalty. One group is plain beam search. A beam's
score stays its log-probability: the penalty decides which token is taken and is not carried on (transformers carries
it on). An ended beam is worth its log-probability divided by its tokens (with the end) to the power `length_penalty`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from prefopt.pairs.lanes import Lanes


@dataclass(frozen=True)
class Searching:
    """groups of `width` beams each. penalty: of a token that an earlier group has chosen, nats.

    temperature: of the softmax. max_new_tokens: of an answer. ends: tokens that end it.
    """

    groups: int
    width: int
    penalty: float
    length_penalty: float
    temperature: float
    max_new_tokens: int
    ends: frozenset[int]


class Beam(NamedTuple):
    """tokens: without the one that ended it. logp: with it, nats. value: what beams are compared by."""

    tokens: list[int]
    stopped: bool
    logp: float
    value: float


@dataclass
class _Group:
    """Of one prompt: the beams that go on, by falling log-probability, and those that have ended."""

    tokens: list[list[int]]
    logps: list[float]
    ended: list[Beam] = field(default_factory=list)
    is_done: bool = False


def search(lanes: Lanes, prompts: Sequence[Sequence[int]], how: Searching, budget: int) -> list[list[Beam]]:
    """groups * width beams for each prompt: group after group, each by falling value.

    budget: tokens of prompts and answers that are held at once.
    """
    size = how.groups * how.width
    order = sorted(range(len(prompts)), key=lambda p: len(prompts[p]), reverse=True)
    found: list[list[Beam]] = [[] for _ in prompts]
    while order:
        room = max(1, budget // ((len(prompts[order[0]]) + how.max_new_tokens) * size))
        chosen, order = order[:room], order[room:]
        with torch.no_grad():
            for place, beams in zip(chosen, _search(lanes, [prompts[p] for p in chosen], how), strict=True):
                found[place] = beams
    return found


def _search(lanes: Lanes, prompts: Sequence[Sequence[int]], how: Searching) -> list[list[Beam]]:
    size = how.groups * how.width
    lanes.add(prompts, size)
    groups = [[_Group([[] for _ in range(how.width)], [0.0] * how.width) for _ in range(how.groups)] for _ in prompts]
    active = list(range(len(prompts)))
    for step in range(1, how.max_new_tokens + 1):
        logps = (lanes.logits / how.temperature).log_softmax(-1).view(len(active), how.groups, how.width, -1)
        origins, tokens = _choose(logps, [groups[p] for p in active], how, step)
        kept = [n for n, p in enumerate(active) if not all(g.is_done for g in groups[p])]
        rows = [n * size + origin for n in kept for origin in origins[n]]
        lanes.keep(torch.tensor(rows, dtype=torch.int64, device=lanes.device))
        active = [active[n] for n in kept]
        if not active:
            break
        if step < how.max_new_tokens:
            lanes.advance(torch.tensor([t for n in kept for t in tokens[n]], device=lanes.device))
    lanes.keep(torch.zeros(0, dtype=torch.int64, device=lanes.device))
    return [[beam for group in of_prompt for beam in _best(group, how)] for of_prompt in groups]


def _choose(
    logps: Tensor, groups: list[list[_Group]], how: Searching, step: int
) -> tuple[list[list[int]], list[list[int]]]:
    """One step of every group: for each prompt the row that each beam continues and its token. logps [P, G, W, V]."""
    vocabulary = logps.shape[-1]
    taken = torch.zeros(len(groups), vocabulary, device=logps.device)
    origins: list[list[int]] = [[] for _ in groups]
    tokens: list[list[int]] = [[] for _ in groups]
    for g in range(how.groups):
        own = torch.tensor([of_prompt[g].logps for of_prompt in groups], device=logps.device)
        if step == 1:  # all beams are the same one so far
            own[:, 1:] = -torch.inf
        totals = own[:, :, None] + logps[:, g]
        ranked = (totals - how.penalty * taken[:, None]).flatten(1)
        count = min(how.width * (1 + len(how.ends)), ranked.shape[1])  # that many hold `width` beams that go on
        best = ranked.topk(count, -1).indices
        values = totals.flatten(1).gather(1, best).tolist()
        for n, (places, sums) in enumerate(zip(best.tolist(), values, strict=True)):
            beams, words = _continue(groups[n][g], places, sums, vocabulary, how, step)
            origins[n] += [g * how.width + beam for beam in beams]
            tokens[n] += words
            for word in words:
                taken[n, word] += 1.0
    return origins, tokens


def _continue(
    group: _Group, places: list[int], sums: list[float], vocabulary: int, how: Searching, step: int
) -> tuple[list[int], list[int]]:
    """One step of one group: the beams that are continued, and by which tokens."""
    if group.is_done:
        return list(range(how.width)), [0] * how.width
    beams: list[int] = []
    words: list[int] = []
    logps: list[float] = []
    for rank, (place, total) in enumerate(zip(places, sums, strict=True)):
        beam, word = divmod(place, vocabulary)
        if word in how.ends:
            if rank < how.width and total > -torch.inf:
                group.ended.append(Beam(group.tokens[beam], True, total, total / step**how.length_penalty))
            continue
        if len(beams) < how.width:
            beams.append(beam)
            words.append(word)
            logps.append(total)
    group.tokens = [[*group.tokens[beam], word] for beam, word in zip(beams, words, strict=True)]
    group.logps = logps
    group.ended = sorted(group.ended, key=lambda b: b.value, reverse=True)[: how.width]
    reachable = logps[0] / step**how.length_penalty
    group.is_done = len(group.ended) == how.width and reachable <= group.ended[-1].value
    return beams, words


def _best(group: _Group, how: Searching) -> list[Beam]:
    """The beams of a group: those that ended, and where it ran into the limit those that did not."""
    beams = list(group.ended)
    if not group.is_done:
        for tokens, logp in zip(group.tokens, group.logps, strict=True):
            beams.append(Beam(tokens, False, logp, logp / max(1, len(tokens)) ** how.length_penalty))
    return sorted(beams, key=lambda b: b.value, reverse=True)[: how.width]
