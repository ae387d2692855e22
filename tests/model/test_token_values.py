"""Collision and divergences of each token: against the full distributions, in chunks, with and without adapters."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from test_policy import EXAMPLES, FAMILIES
from transformers import AutoModelForCausalLM, PreTrainedModel

from prefopt.batch import Outputs
from prefopt.model import logps
from prefopt.model.load import with_adapters
from prefopt.model.policy import Policy
from prefopt.pack import pack
from prefopt.settings import LoraSettings

ASKS = frozenset({"collision", "forward_kl", "reverse_kl"})


def model(seed: int, family: str = "llama") -> PreTrainedModel:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(deepcopy(FAMILIES[family]), attn_implementation="eager").double().eval()


def distributions(of: PreTrainedModel) -> torch.Tensor:
    """[N, V] log-probabilities at every response token, one sequence at a time."""
    found = []
    with torch.no_grad():
        for example in EXAMPLES:
            for response in example.responses:
                logits = of(input_ids=torch.tensor([example.prompt + response])).logits[0]
                found.append(logits[len(example.prompt) - 1 : -1].double().log_softmax(-1))
    return torch.cat(found)


def expected(policy: PreTrainedModel, reference: PreTrainedModel) -> dict[str, torch.Tensor]:
    p, q = distributions(policy), distributions(reference)
    return {
        "collision": (p.exp() ** 2).sum(-1).log(),
        "forward_kl": (q.exp() * (q - p)).sum(-1),
        "reverse_kl": (p.exp() * (p - q)).sum(-1),
    }


def assert_as(outputs: Outputs, wanted: dict[str, torch.Tensor]) -> None:
    for name, values in wanted.items():
        torch.testing.assert_close(getattr(outputs, name), values, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_they_are_those_of_the_full_distributions(family: str) -> None:
    one, two = model(0, family), model(1, family)
    wanted = expected(one, two)
    found = Policy(one)(pack(EXAMPLES), ASKS, Policy(two))
    assert_as(found, wanted)
    assert (wanted["forward_kl"] > 0).all()


def test_only_what_is_asked_for_is_computed() -> None:
    found = Policy(model(0))(pack(EXAMPLES), frozenset({"collision"}))
    assert found.collision is not None
    assert found.forward_kl is None
    assert found.reverse_kl is None


def test_chunks_change_neither_values_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = []
    for most in (logps.MAX_LOGITS, 61 * 4 * 3):  # everything at once; three rows at a time
        monkeypatch.setattr(logps, "MAX_LOGITS", most)
        policy = Policy(model(0))
        found = policy(pack(EXAMPLES), ASKS, Policy(model(1)))
        assert found.forward_kl is not None
        assert found.reverse_kl is not None
        (found.token_logps.sum() + 0.5 * found.forward_kl.sum() - 2 * found.reverse_kl.sum()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


def test_collision_and_reference_carry_no_gradient() -> None:
    reference = Policy(model(1))
    found = Policy(model(0))(pack(EXAMPLES), ASKS, reference)
    assert found.collision is not None
    assert found.forward_kl is not None
    assert not found.collision.requires_grad
    found.forward_kl.sum().backward()
    assert all(p.grad is None for p in reference.parameters())


def adapted(seed: int) -> Policy:
    policy = Policy(with_adapters(model(0), LoraSettings(r=4), "CAUSAL_LM"), has_adapters=True)
    random = torch.Generator().manual_seed(seed)
    for name, parameter in policy.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2, generator=random)
    return policy.double()


def testwith_adapters_the_reference_is_the_model_without_them() -> None:
    policy = adapted(5)
    merged = deepcopy(policy).model.merge_and_unload()
    merged.set_attn_implementation("sdpa")
    found = policy(pack(EXAMPLES), ASKS)
    assert_as(found, expected(merged, model(0)))


def test_a_policy_without_adapters_needs_a_reference_of_its_own() -> None:
    with pytest.raises(ValueError, match="a reference of its own"):
        Policy(model(0))(pack(EXAMPLES), frozenset({"forward_kl"}))
