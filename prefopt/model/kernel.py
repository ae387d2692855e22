"""Which kernel computes shared-prompt attention on this device: chosen by trying, not by the device's name."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from prefopt.batch import Segment, Span
from prefopt.errors import UserError
from prefopt.model.attention import SharedLayout, shared_prompt_attention
from prefopt.model.policy import Policy

KERNELS = ("segments", "flex")


def settle_kernel(policy: Policy, requested: str, dtype: torch.dtype) -> str:
    """Choose the policy's attention kernel and leave it set; returns what to say of it, empty where nothing is to say.

    requested: auto (flex on CUDA where it computes what segments computes, else segments) or a kernel. dtype: what the
    attention computes in.

    Raises: UserError where a requested kernel does not compute on this device what it should.
    """
    device = next(policy.parameters()).device
    if requested == "auto" and device.type != "cuda":
        return ""
    policy.kernel = "segments"
    if requested == "segments":
        return ""
    complaint = disagreement(policy.pretrained.config.get_text_config(), device, dtype)
    if complaint and requested == "flex":
        raise UserError(f"model.attention=flex: {complaint}", "use model.attention=auto")
    if complaint:
        return f"FlexAttention is left alone ({complaint}): attention runs a call for each response"
    policy.kernel = "flex"
    return ""


def disagreement(config: PreTrainedConfig, device: torch.device, dtype: torch.dtype) -> str:
    """What is wrong with FlexAttention for a model's heads on a device: output and gradients against those of the
    segments kernel, for the model's own window and soft-capping. Empty where nothing is."""
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    windows = {None, getattr(config, "sliding_window", None)}
    softcap = getattr(config, "attn_logit_softcapping", None)
    for window in windows:
        try:
            found, expected = (
                _try(k, heads, key_heads, size, window, softcap, device, dtype) for k in ("flex", "segments")
            )
        except Exception as error:  # whatever the compiler raises: its reason belongs in the sentence
            return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200]
        for a, b in zip(found, expected, strict=True):
            limit = 2e-2 if dtype == torch.bfloat16 else 1e-3
            if not (difference := float((a - b).abs().max() / b.abs().max())) <= limit:
                return f"it differs by {difference:.1e} from attention by segments in {dtype}"
    return ""


def _try(
    kernel: str,
    heads: int,
    key_heads: int,
    size: int,
    window: int | None,
    softcap: float | None,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Tensor, ...]:
    """Output and gradients of one attention over made-up states, in float32."""
    random = torch.Generator().manual_seed(0)
    length = TRIAL[-1].responses[-1].stop
    shapes = [(1, heads, length, size), (1, key_heads, length, size), (1, key_heads, length, size)]
    states = [torch.randn(shape, generator=random).to(device, dtype).requires_grad_() for shape in shapes]
    weight = torch.randn(1, length, heads, size, generator=random).to(device, dtype)
    layout = SharedLayout(TRIAL, kernel)
    module = torch.nn.Identity()
    with torch.enable_grad():
        query, key, value = states
        output, _ = shared_prompt_attention(
            module, query, key, value, None, sliding_window=window, softcap=softcap, shared_layout=layout
        )
        grads = torch.autograd.grad((output * weight).sum(), states)
    return tuple(t.detach().float() for t in (output, *grads))


TRIAL = (
    Segment(Span(0, 150), (Span(150, 230), Span(230, 231), Span(231, 420))),
    Segment(Span(420, 425), (Span(425, 560),)),
    Segment(Span(560, 900), (Span(900, 900), Span(900, 1000))),
)
"""Long and short prompts with one to three responses, one of them without a token on the axis."""
