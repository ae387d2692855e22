"""Shared-prompt attention as one call of FlexAttention: for GPUs, where a call for each response would cost more.

The kernel is compiled once for all batches: what differs between them (lengths, who sees whom) are tensors it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from prefopt.batch import Segment

BLOCK = 128
"""Places along the axis that the kernel takes or skips at once."""


class FlexLayout:
    """Who sees whom in a batch, as FlexAttention wants it; the layers of a model share it."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = segments
        self.num_tokens = max(s.stop for prompt, responses in segments for s in (prompt, *responses))
        self._masks: dict[int | None, BlockMask] = {}

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """query [1, H, T, D], key and value [1, H_kv, T, D] -> [1, H, T, D]. Compiled on CUDA, as it is elsewhere."""
        mask = self._mask(window, query.device)
        call: Any = _compiled() if query.is_cuda else flex_attention
        return call(query, key, value, _cap(softcap), mask, scaling, enable_gqa=query.shape[1] != key.shape[1])

    @cached_property
    def _owners(self) -> np.ndarray:
        """[3, T] for each place its segment, its response within that (0: the prompt) and its position."""
        owners = np.zeros((3, self.num_tokens), dtype=np.int32)
        for number, (prompt, responses) in enumerate(self.segments):
            for response, span in enumerate((prompt, *responses)):
                first = 0 if response == 0 else prompt.stop - prompt.start
                owners[0, span.start : span.stop] = number
                owners[1, span.start : span.stop] = response
                owners[2, span.start : span.stop] = np.arange(first, first + span.stop - span.start)
        return owners

    def _mask(self, window: int | None, device: torch.device) -> BlockMask:
        if window not in self._masks:
            segment, response, position = torch.from_numpy(self._owners).to(device)
            reach = torch.tensor(2**30 if window is None else window, device=device)

            def sees(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
                same = (segment[q] == segment[kv]) & ((response[kv] == 0) | (response[kv] == response[q]))
                return same & (kv <= q) & (position[q] - position[kv] < reach)

            partly, wholly = (_indices(blocks, device) for blocks in blocks_of(self.segments, self.num_tokens, window))
            length = (self.num_tokens, self.num_tokens)
            self._masks[window] = BlockMask.from_kv_blocks(*partly, *wholly, BLOCK, sees, seq_lengths=length)
        return self._masks[window]


def blocks_of(segments: Sequence[Segment], num_tokens: int, window: int | None) -> tuple[np.ndarray, np.ndarray]:
    """[rows, columns] of BLOCK x BLOCK queries and keys, twice: where some see each other but perhaps not all, and
    where surely all do (only without a window, whose edge cuts through blocks)."""
    count = -(-num_tokens // BLOCK)
    some, every = np.zeros((count, count), dtype=bool), np.zeros((count, count), dtype=bool)
    for prompt, responses in segments:
        for queries in (prompt, *responses):
            for keys in {prompt, queries}:
                if queries.start == queries.stop:
                    continue
                some[_touched(queries.start, queries.stop), _touched(keys.start, keys.stop)] = True
                if keys != queries and window is None:
                    every[_inside(queries.start, queries.stop), _inside(keys.start, keys.stop)] = True
                if keys == queries and window is None:
                    inside = _inside(keys.start, keys.stop)
                    every[inside, inside] |= np.tri(max(0, inside.stop - inside.start), k=-1, dtype=bool)
    some &= np.tri(count, dtype=bool)
    return some & ~every, every


def _touched(start: int, stop: int) -> slice:
    return slice(start // BLOCK, -(-stop // BLOCK))


def _inside(start: int, stop: int) -> slice:
    first = -(-start // BLOCK)
    return slice(first, max(first, stop // BLOCK))


def _indices(blocks: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """FlexAttention's form: [1, 1, rows] how many, [1, 1, rows, columns] which, those first."""
    counts = torch.from_numpy(blocks.sum(1).astype(np.int32))
    order = torch.from_numpy(np.argsort(~blocks, axis=1, kind="stable").astype(np.int32))
    return counts[None, None].to(device), order[None, None].to(device)


def _cap(softcap: float | None) -> Callable[..., Tensor] | None:
    """Scores cut to (-softcap, softcap) by tanh (Gemma 2)."""
    if softcap is None:
        return None

    def capped(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return torch.tanh(score / softcap) * softcap

    return capped


@cache
def _compiled() -> Any:
    # dynamic: each batch has another length; without it the kernel would be compiled for each of them.
    return torch.compile(flex_attention, dynamic=True)
