"""Attention over a packed token axis in which responses share their prompt.

A token sees the tokens of its own prompt and of its own response that are not later; nothing else. The function is
registered with transformers' attention interface, so every family that uses the interface runs unchanged: grouped
queries, sliding windows, soft-capping and rotary variants come from the model, the layout from the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from prefopt.batch import Segment
from prefopt.model.flex import FlexLayout

NAME = "prefopt_shared"


class SharedLayout:
    """The segments of a batch, and what its attention calls have in common (layers share it).

    kernel: "segments", one call for each prompt with its first response and one for each further response; or "flex",
    one call of FlexAttention for all of them.
    """

    def __init__(self, segments: Sequence[Segment], kernel: str = "segments") -> None:
        self.segments = segments
        self.kernel = kernel
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}

    @cached_property
    def parts(self) -> list[int]:
        """Lengths along the axis: for each segment its prompt and each of its responses."""
        return [s.stop - s.start for prompt, responses in self.segments for s in (prompt, *responses)]

    @cached_property
    def calls(self) -> list[int]:
        """Lengths along the axis of the queries of each call: the prompt with its first response, further responses."""
        lengths = []
        for prompt, responses in self.segments:
            lengths.append((responses[0] if responses else prompt).stop - prompt.start)
            lengths += [response.stop - response.start for response in responses[1:]]
        return lengths

    @cached_property
    def flex(self) -> FlexLayout:
        """The same for FlexAttention."""
        return FlexLayout(self.segments)

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

    Raises: NotImplementedError for attention sinks and dropout, which it does not compute.
    """
    if shared_layout is None or s_aux is not None or dropout or query.shape[0] != 1:
        raise NotImplementedError("shared-prompt attention runs packed batches without sinks and without dropout")
    attend = shared_layout.flex.attend if shared_layout.kernel == "flex" else _segments(shared_layout)
    return attend(query, key, value, scaling, sliding_window, softcap).transpose(1, 2).contiguous(), None


Attend = Callable[[Tensor, Tensor, Tensor, float | None, int | None, float | None], Tensor]
"""query, key, value, scaling, window, softcap -> [1, H, T, D]."""


def _segments(layout: SharedLayout) -> Attend:
    """The prompt and its first response lie side by side and are one causal call; each further response is a call of
    its own whose keys are the prompt's and its own.

    The axis is split, not sliced: the gradient of a slice is a whole axis of zeros, that of a split is one copy.
    """

    def attend(
        query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None, softcap: float | None
    ) -> Tensor:
        queries = iter(query.split(layout.calls, dim=2))
        keys, values = iter(key.split(layout.parts, dim=2)), iter(value.split(layout.parts, dim=2))
        outputs = []
        for _, responses in layout.segments:
            prompt = next(keys), next(values)
            for _ in responses or (None,):
                own = (next(keys), next(values)) if responses else None
                q = next(queries)
                if q.shape[2]:
                    k, v = prompt if own is None else (torch.cat(two, dim=2) for two in zip(prompt, own, strict=True))
                    outputs.append(_attend(q, k, v, layout, scaling, window, softcap))
        return torch.cat(outputs, dim=2)

    return attend


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: SharedLayout,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attention of queries that are the last of the keys."""
    num_queries, num_keys = q.shape[2], k.shape[2]
    if window is not None and window >= num_keys:
        window = None
    if softcap is not None:
        return _soft_capped(q, k, v, layout.mask(num_queries, num_keys, window, q.device), scaling, softcap)
    if num_queries == num_keys and window is None:
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
    mask = layout.mask(num_queries, num_keys, window, q.device)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling, enable_gqa=True)


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
