"""Whether a model can be told where packed rows begin and end: by trying, not by its name."""

from __future__ import annotations

import torch

from prefopt.batch import Batch, Encoded
from prefopt.errors import UserError
from prefopt.model.forward import Forward
from prefopt.model.policy import Policy
from prefopt.pack import pack


def settle_layout(policy: Policy, forward: Forward, requested: str) -> str:
    """Choose the policy's layout and leave it set; returns it.

    requested: auto, or a layout that must hold. forward: the policy as it is called (wrapped by DDP or ZeRO), on every
    rank at once. A packed layout holds if a row's log-probabilities (or reward) do not move when another row's tokens
    change, and are those of one padded row per response.

    Raises: UserError where the requested layout does not hold.
    """
    wanted = "shared" if requested == "auto" else requested
    if wanted != "padded" and not _holds(policy, forward, wanted):
        if requested != "auto":
            raise UserError(
                f"model.layout={requested}: this model's attention does not keep packed rows apart",
                "use model.layout=auto",
            )
        wanted = "padded"
    policy.use_layout(wanted)
    return wanted


def _holds(policy: Policy, forward: Forward, layout: str) -> bool:
    was_training = policy.training
    policy.eval()
    try:
        with torch.no_grad():
            policy.use_layout("padded")
            expected = forward(probe(policy, False)).probe
            policy.use_layout(layout)
            try:
                got = forward(probe(policy, policy.shares_prompts)).probe
                disturbed = forward(probe(policy, policy.shares_prompts, first_response=1)).probe
            except (TypeError, NotImplementedError):  # the family does not pass the layout on, or has attention sinks
                return False
    finally:
        policy.train(was_training)
    # The first response comes first on the axis: whatever leaks from it reaches every row behind it. The same
    # operations on the same numbers give the same bits, so that even the small leak of an untrained model shows.
    behind = 1 if policy.has_scalar_head else FIRST_RESPONSE
    is_apart = torch.allclose(got[behind:], disturbed[behind:], rtol=0, atol=1e-6)
    # bfloat16 keeps 8 bits: two orders of the same sums differ by about 1 % of a logit.
    low = next(policy.parameters()).dtype == torch.bfloat16 or torch.is_autocast_enabled(got.device.type)
    low |= any(p.dtype == torch.int8 for p in policy.parameters())  # activations are rounded to 8 bits
    return is_apart and torch.allclose(got, expected, rtol=0.1 if low else 1e-3, atol=0.2 if low else 1e-3)


FIRST_RESPONSE = 4
"""Tokens of the response that a probe can change."""


def probe(policy: Policy, share_prompts: bool, first_response: int = 0) -> Batch:
    """Two small examples with two responses each, of tokens that every vocabulary has.

    first_response: a seed; another one changes the tokens of the first response and nothing else.
    """
    most = min(policy.vocabulary, 1000)
    random = torch.Generator().manual_seed(0)

    def tokens(count: int, source: torch.Generator = random) -> list[int]:
        return torch.randint(0, most, (count,), generator=source).tolist()

    first = tokens(FIRST_RESPONSE, torch.Generator().manual_seed(100 + first_response))
    examples = [
        Encoded(f"probe-{i}", i, tokens(6 + i), [tokens(5) if i else first, tokens(7)], [(0, 1)], 0) for i in range(2)
    ]
    device = next(policy.parameters()).device
    return pack(examples, share_prompts, whole_responses=policy.has_scalar_head).to(device)
