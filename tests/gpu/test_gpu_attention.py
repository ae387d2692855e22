"""FlexAttention, compiled, is attention by segments: output, gradients, and one compilation for many lengths."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prefopt.batch import Encoded
from prefopt.model.kernel import disagreement, settle_kernel
from prefopt.model.policy import Policy
from prefopt.pack import pack

pytestmark = pytest.mark.gpu

SMALL = LlamaConfig(
    vocab_size=500, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=4096,
)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("window", "cap"), [(None, None), (100, None), (None, 30.0), (100, 30.0)])
def test_output_and_gradients_are_those_of_segments(dtype: torch.dtype, window: int | None, cap: float | None) -> None:
    config = LlamaConfig(hidden_size=512, num_attention_heads=8, num_key_value_heads=4, sliding_window=window)
    config.attn_logit_softcapping = cap
    assert disagreement(config, torch.device("cuda"), dtype) == ""


def batch_of(seed: int) -> list[Encoded]:
    random = torch.Generator().manual_seed(seed)

    def tokens(most: int) -> list[int]:
        count = int(torch.randint(1, most, (), generator=random))
        return torch.randint(0, 500, (count,), generator=random).tolist()

    return [Encoded(str(n), n, tokens(400), [tokens(200) for _ in range(2 + n % 3)], [(0, 1)], 0) for n in range(5)]


def test_a_model_with_flex_gives_the_gradient_of_segments() -> None:
    torch.manual_seed(0)
    policy = Policy(LlamaForCausalLM(SMALL)).to("cuda")
    found = {}
    for policy.kernel in ("segments", "flex"):
        policy.zero_grad()
        logps = policy(pack(batch_of(0)).to("cuda")).token_logps
        logps.sum().backward()
        found[policy.kernel] = torch.cat([p.grad.flatten() for p in policy.parameters()])
    difference = (found["flex"] - found["segments"]).norm()
    assert difference <= 1e-3 * found["segments"].norm()


def test_batches_of_other_lengths_compile_nothing_anew() -> None:
    policy = Policy(LlamaForCausalLM(SMALL)).to("cuda", torch.bfloat16)
    assert settle_kernel(policy, "flex", torch.bfloat16) == ""
    for seed in range(3):  # the shapes that dynamo takes for special are met here
        policy(pack(batch_of(seed)).to("cuda")).token_logps.sum().backward()
    torch._dynamo.utils.counters.clear()
    for seed in range(3, 12):
        policy(pack(batch_of(seed)).to("cuda")).token_logps.sum().backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0


def test_auto_takes_flex_where_it_is_right() -> None:
    policy = Policy(LlamaForCausalLM(SMALL)).to("cuda", torch.bfloat16)
    said = settle_kernel(policy, "auto", torch.bfloat16)
    assert (policy.kernel, said) == ("flex", "")
