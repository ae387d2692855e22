"""A model that cannot be told where packed rows end is found out, and gets its prompts repeated."""

from __future__ import annotations

import pytest
import torch
from test_policy import EXAMPLES, FAMILIES, make_model, own_logps
from transformers import AutoModelForCausalLM, BloomConfig, MambaConfig

from prefopt.errors import UserError
from prefopt.model.layout import settle_layout
from prefopt.model.policy import Policy
from prefopt.pack import pack

STUBBORN = {
    "mamba": MambaConfig(vocab_size=61, hidden_size=32, num_hidden_layers=2, state_size=8, time_step_rank=4),
    "bloom": BloomConfig(vocab_size=61, hidden_size=32, n_layer=2, n_head=4),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_that_can_share_do(family: str) -> None:
    policy = Policy(make_model(FAMILIES[family]).float(), "padded")
    assert settle_layout(policy, policy, "auto") == "shared"
    assert policy.shares_prompts


@pytest.mark.parametrize("family", STUBBORN)
def test_others_are_padded_and_give_their_own_numbers(family: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(STUBBORN[family]).eval()
    policy = Policy(model)
    assert settle_layout(policy, policy, "auto") == "padded"
    expected = [token for e in EXAMPLES for response in own_logps(model, e) for token in response]
    with torch.no_grad():
        found = policy(pack(EXAMPLES, share_prompts=policy.shares_prompts)).token_logps
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-4)


def test_asking_for_a_layout_that_does_not_hold_is_refused() -> None:
    torch.manual_seed(0)
    policy = Policy(AutoModelForCausalLM.from_config(STUBBORN["mamba"]))
    with pytest.raises(UserError, match=r"model\.layout=shared"):
        settle_layout(policy, policy, "shared")
