"""Attention over a packed token axis in which responses share their prompt.

A token sees the tokens of its own prompt and of its own response that are not later; nothing else. The function is
registered with transformers' attention interface, so every family that uses the interface runs unchanged: grouped
queries, sliding windows, soft-capping and rotary variants come from the model, the layout from the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from prefopt.batch import Segment, Span

NAME = "prefopt_shared"


class SharedLayout:
    """The segments of a batch, and the masks that its attention calls have in common (layers share them)."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = segments
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}

    def mask(self, num_queries: int, num_keys: int, window: int | None, device: torch.device) -> Tensor:
        """[num_queries, num_keys], True where a query may look: causal, the queries being the last of the keys.

        window: how many keys back a query sees, itself included; None for all.
        """
        key = (num_queries, num_keys, window)
        if key not in self._masks:
            mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
            mask = mask.tril(num_keys - num_queries)
            if window is not None:
                mask = mask.triu(num_keys - num_queries - window + 1)
            self._masks[key] = mask
        return self._masks[key]


def shared_prompt_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    shared_layout: SharedLayout | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention signature. query [1, H, T, D], key and value [1, H_kv, T, D] -> ([1, T, H, D], None).

    The prompt and its first response lie side by side and are one causal call; each further response is a call of its
    own whose keys are the prompt's and its own.

    Raises: NotImplementedError for attention sinks and dropout, which it does not compute.
    """
    if shared_layout is None or s_aux is not None or dropout or query.shape[0] != 1:
        raise NotImplementedError("shared-prompt attention runs packed batches without sinks and without dropout")
    variant = (shared_layout, scaling, sliding_window, softcap)
    outputs = []
    for prompt, responses in shared_layout.segments:
        first = Span(prompt.start, responses[0].stop) if responses else prompt
        outputs.append(_attend(query, key, value, first, (first,), *variant))
        for response in responses[1:]:
            if response.start < response.stop:
                keys = (prompt, response)
                outputs.append(
                    _attend(query, key, value, response, keys, shared_layout, scaling, sliding_window, softcap)
                )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: Span,
    keys: tuple[Span, ...],
    layout: SharedLayout,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    q = query[:, :, queries.start : queries.stop]
    k = _gather(key, keys)
    v = _gather(value, keys)
    num_queries, num_keys = q.shape[2], k.shape[2]
    if window is not None and window >= num_keys:
        window = None
    if softcap is not None:
        return _soft_capped(q, k, v, layout.mask(num_queries, num_keys, window, q.device), scaling, softcap)
    if num_queries == num_keys and window is None:
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
    mask = layout.mask(num_queries, num_keys, window, q.device)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling, enable_gqa=True)


def _gather(values: Tensor, spans: tuple[Span, ...]) -> Tensor:
    parts = [values[:, :, s.start : s.stop] for s in spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _soft_capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scaling: float | None, softcap: float) -> Tensor:
    """Attention with scores cut to (-softcap, softcap) by tanh (Gemma 2), softmax in float32 as the model does."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1, dtype=torch.promote_types(q.dtype, torch.float32))
    return weights.to(q.dtype) @ v


def default_attention(model: PreTrainedModel) -> str:
    """The attention a model runs exactly with on its own: SDPA, or eager where scores are soft-capped (Gemma 2)."""
    config = model.config.get_text_config().to_dict()
    if config.get("attn_logit_softcapping") is not None or not model._supports_sdpa:
        return "eager"
    return "sdpa"


AttentionInterface.register(NAME, shared_prompt_attention)
