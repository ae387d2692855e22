"""Several samples of each of many prompts, each drawn with random numbers of its own.

The token of a row at a step is found where the row's own uniform number falls into the cumulated probabilities, so that
which rows stand beside it changes nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefopt.pairs.chance import number_of
from prefopt.pairs.lanes import Lanes

Uniforms = Callable[[int, int], np.ndarray]
"""(prompt, sample) to the random numbers of its tokens, in [0, 1)."""


@dataclass(frozen=True)
class Drawing:
    """How a token is chosen.

    temperature: of the softmax; 0 takes the likeliest. top_k: from the k likeliest only; 0: all. top_p: from the
    fewest likeliest that hold this probability; 1: all. max_new_tokens: of an answer. ends: tokens that end it.
    """

    temperature: float
    top_k: int
    top_p: float
    max_new_tokens: int
    ends: frozenset[int]


def uniforms_of(seed: int, policy: int, keys: Sequence[str], count: int) -> Uniforms:
    """Random numbers that the seed, the policy, the prompt and the sample's number decide, and nothing else.

    policy: its place among those that answer. keys: of the prompts. count: tokens of an answer.
    """

    def uniforms(prompt: int, number: int) -> np.ndarray:
        bits = np.random.Philox(number_of(seed, policy, keys[prompt], number))
        return np.random.Generator(bits).random(count)

    return uniforms


class Sampled(NamedTuple):
    """tokens: of the answer, without the one that ended it. stopped: the model ended it, not the limit."""

    tokens: list[int]
    stopped: bool


@dataclass
class _Row:
    prompt: int
    number: int
    uniforms: np.ndarray
    tokens: list[int] = field(default_factory=list)


def sample(
    lanes: Lanes, prompts: Sequence[Sequence[int]], n: int, drawing: Drawing, uniforms: Uniforms, budget: int
) -> list[list[Sampled]]:
    """n answers to each prompt, in their order. budget: tokens of prompts and answers that are held at once.

    The longest prompts begin; where rows have ended and there is room, others take their place.
    """
    waiting = sorted(range(len(prompts)), key=lambda p: len(prompts[p]), reverse=True)[::-1]
    rows: list[_Row] = []
    found: list[dict[int, Sampled]] = [{} for _ in prompts]
    with torch.no_grad():
        while rows or waiting:
            _admit(lanes, rows, waiting, prompts, n, drawing, uniforms, budget)
            tokens = draw(lanes.logits, [row.uniforms[len(row.tokens)] for row in rows], drawing)
            alive = []
            for place, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
                stopped = token in drawing.ends
                if not stopped:
                    row.tokens.append(token)
                if stopped or len(row.tokens) == drawing.max_new_tokens:
                    found[row.prompt][row.number] = Sampled(row.tokens, stopped)
                else:
                    alive.append(place)
            if len(alive) < len(rows):
                rows = [rows[place] for place in alive]
                kept = torch.tensor(alive, dtype=torch.int64, device=lanes.device)
                lanes.keep(kept)
                tokens = tokens[kept]
            if rows:
                lanes.advance(tokens)
    return [[answers[number] for number in range(n)] for answers in found]


def _admit(
    lanes: Lanes,
    rows: list[_Row],
    waiting: list[int],
    prompts: Sequence[Sequence[int]],
    n: int,
    drawing: Drawing,
    uniforms: Uniforms,
    budget: int,
) -> None:
    """Let waiting prompts begin as far as there is room; only when half of the room is free, for each entry costs."""
    if not waiting:
        return
    longest = len(prompts[waiting[-1]]) + drawing.max_new_tokens
    room = max(1, budget // (longest * n))  # prompts
    held = -(-len(rows) // n)
    if rows and held > room // 2:
        return
    chosen = [waiting.pop() for _ in range(min(len(waiting), max(1, room - held)))]
    lanes.add([prompts[p] for p in chosen], n)
    rows.extend(_Row(p, number, uniforms(p, number)) for p in chosen for number in range(n))


def draw(logits: Tensor, uniforms: Sequence[float], drawing: Drawing) -> Tensor:
    """[B] tokens. logits [B, V] float32. uniforms: a number in [0, 1) for each row."""
    if drawing.temperature == 0:
        return logits.argmax(-1)
    logits = logits / drawing.temperature
    if 0 < drawing.top_k < logits.shape[-1]:
        least = logits.topk(drawing.top_k, -1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = logits.softmax(-1).double()
    if drawing.top_p < 1:
        falling, order = torch.sort(probabilities, dim=-1, descending=True, stable=True)
        before = falling.cumsum(-1) - falling
        probabilities = probabilities.scatter(-1, order, falling.masked_fill(before >= drawing.top_p, 0.0))
    cumulated = probabilities.cumsum(-1)
    wanted = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None] * cumulated[:, -1:]
    place = torch.searchsorted(cumulated, wanted, right=True)[:, 0]
    return place.clamp(max=logits.shape[-1] - 1)
