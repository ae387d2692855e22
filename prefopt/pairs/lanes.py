"""Sequences that are continued side by side: prompts are read once for all their copies, rows come and go.

Shapes: B rows, L places of the cache, V tokens of the vocabulary. Rows are padded on the left, so that the newest token
of each lies in the last place; positions count from a row's own first token.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


class Lanes:
    """The rows that a model continues, with what it remembers of them.

    logits [B, V] float32: of the token that comes next in each row.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.logits = torch.empty(0)
        self._cache = DynamicCache()
        self._mask = torch.zeros(0, 0, dtype=torch.int64, device=self.device)  # [B, L]
        self._position = torch.zeros(0, dtype=torch.int64, device=self.device)  # [B] of the next token
        self._takes = set(inspect.signature(model.forward).parameters) & {"position_ids", "logits_to_keep"}

    def __len__(self) -> int:
        return self._mask.shape[0]

    def add(self, prompts: Sequence[Sequence[int]], copies: int) -> None:
        """Read prompts, once each, and put `copies` rows of each behind those that are there."""
        longest = max(len(p) for p in prompts)
        ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=self.device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        cache = DynamicCache()
        logits = self._run(ids, (mask.cumsum(1) - 1).clamp(min=0), mask, cache)
        cache.batch_repeat_interleave(copies)
        logits, mask = logits.repeat_interleave(copies, 0), mask.repeat_interleave(copies, 0)
        position = mask.sum(1)
        if not len(self):
            self._cache, self._mask, self._position, self.logits = cache, mask, position, logits
            return
        width = max(self._mask.shape[1], longest)
        for own, new in zip(_layers(self._cache), _layers(cache), strict=True):
            own.keys = torch.cat([_widened(own.keys, width), _widened(new.keys, width)])
            own.values = torch.cat([_widened(own.values, width), _widened(new.values, width)])
        self._mask = torch.cat([_padded(self._mask, width), _padded(mask, width)])
        self._position = torch.cat([self._position, position])
        self.logits = torch.cat([self.logits, logits])

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows, in this order; a row may be there several times."""
        self._cache.batch_select_indices(rows)
        self._mask, self._position, self.logits = self._mask[rows], self._position[rows], self.logits[rows]
        if not len(self):
            return
        unused = int(self._mask.shape[1] - self._mask.sum(1).max())  # places in which no row has a token
        if unused:
            self._mask = self._mask[:, unused:]
            for layer in _layers(self._cache):
                layer.keys, layer.values = layer.keys[:, :, unused:], layer.values[:, :, unused:]

    def advance(self, tokens: Tensor) -> None:
        """Continue each row by its token [B]."""
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        self.logits = self._run(tokens[:, None], self._position[:, None], self._mask, self._cache)
        self._position = self._position + 1

    def _run(self, ids: Tensor, positions: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        more = {"position_ids": positions, "logits_to_keep": 1}
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **{name: value for name, value in more.items() if name in self._takes},
        )
        return output.logits[:, -1].float()


def _layers(cache: DynamicCache) -> list[Any]:
    """Each with keys and values [B, heads, L, size]: a DynamicCache that is given no configuration has no others."""
    return list(cache.layers)


def _padded(mask: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(mask, (width - mask.shape[1], 0))


def _widened(states: Tensor, width: int) -> Tensor:
    """[B, heads, L, size] with places in front up to `width`."""
    return torch.nn.functional.pad(states, (0, 0, width - states.shape[2], 0))
