"""Whether a model can be told where packed rows begin and end: by trying, not by its name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prefopt.batch import Batch, Encoded
from prefopt.errors import UserError
from prefopt.model.policy import Policy
from prefopt.pack import pack


def settle_layout(policy: Policy, forward: Callable[[Batch], tuple[Tensor, Tensor]], requested: str) -> str:
    """Choose the policy's layout and leave it set; returns it.

    requested: auto, or a layout that must hold. forward: the policy as it is called (wrapped by DDP or ZeRO), on every
    rank at once. A packed layout holds if log-probabilities of a probe equal those of one padded row per response.

    Raises: UserError where the requested layout gives other numbers than the model's own attention.
    """
    wanted = "shared" if requested == "auto" else requested
    if wanted != "padded" and not _equal_to_padded(policy, forward, wanted):
        if requested != "auto":
            raise UserError(
                f"model.layout={requested}: this model's attention does not keep packed rows apart",
                "use model.layout=auto",
            )
        wanted = "padded"
    policy.use_layout(wanted)
    return wanted


def _equal_to_padded(policy: Policy, forward: Callable[[Batch], tuple[Tensor, Tensor]], layout: str) -> bool:
    was_training = policy.training
    policy.eval()
    try:
        with torch.no_grad():
            policy.use_layout("padded")
            expected = forward(probe(policy, share_prompts=False))[0]
            policy.use_layout(layout)
            try:
                got = forward(probe(policy, share_prompts=policy.shares_prompts))[0]
            except (TypeError, NotImplementedError):  # the family does not pass the layout on, or has attention sinks
                return False
    finally:
        policy.train(was_training)
    # bfloat16 keeps 8 bits: two orders of the same sums differ by about 1 % of a logit.
    low = next(policy.parameters()).dtype != torch.float32 or got.dtype != expected.dtype
    return torch.allclose(got, expected, rtol=0.1 if low else 1e-3, atol=0.2 if low else 1e-3)


def probe(policy: Policy, share_prompts: bool) -> Batch:
    """Two small examples with two responses each, of tokens that every vocabulary has."""
    most = min(policy.vocabulary, 1000)
    random = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(0, most, (count,), generator=random).tolist()

    examples = [Encoded(f"probe-{i}", i, tokens(6 + i), [tokens(4), tokens(7)], [(0, 1)], 0) for i in range(2)]
    device = next(policy.parameters()).device
    return pack(examples, share_prompts).to(device)
