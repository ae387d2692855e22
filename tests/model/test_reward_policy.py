"""A scalar head on a packed, prompt-shared forward is transformers' own sequence classification."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from test_policy import EXAMPLES, FAMILIES
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from prefopt.errors import UserError
from prefopt.model.files import model_folder
from prefopt.model.forward import respond
from prefopt.model.layout import settle_layout
from prefopt.model.load import load_reward_policy
from prefopt.model.policy import RewardPolicy
from prefopt.pack import pack
from prefopt.settings import ModelSettings


def reward_model(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    config = deepcopy(config)
    config.num_labels = 1
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()


def own_rewards(model: PreTrainedModel) -> list[float]:
    """transformers' own numbers, one sequence at a time."""
    with torch.no_grad():
        return [
            model(input_ids=torch.tensor([e.prompt + response])).logits.item()
            for e in EXAMPLES
            for response in e.responses
        ]


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rewards_are_those_of_separate_forwards(family: str, layout: str) -> None:
    model = reward_model(FAMILIES[family])
    expected = own_rewards(model)
    policy = RewardPolicy(model, layout)
    with torch.no_grad():
        found = respond(policy, pack(EXAMPLES, share_prompts=layout == "shared", whole_responses=True))
    assert found.rewards is not None
    assert found.rewards.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert len(set(expected)) > len(expected) / 2


def test_a_scalar_head_has_no_log_probabilities_to_be_mistaken_for_some() -> None:
    found = respond(RewardPolicy(reward_model(FAMILIES["llama"])), pack(EXAMPLES, whole_responses=True))
    assert found.token_logps.shape == (0,)
    assert found.logps.isnan().all()


def test_a_batch_without_last_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="whole_responses"):
        RewardPolicy(reward_model(FAMILIES["llama"]))(pack(EXAMPLES))


def test_the_layout_of_a_scalar_head_is_settled_by_its_rewards() -> None:
    policy = RewardPolicy(reward_model(FAMILIES["mistral_sliding"]), "padded")
    assert settle_layout(policy, policy, "auto") == "shared"


def save(folder: Path, model: PreTrainedModel) -> ModelSettings:
    model.save_pretrained(folder)
    assert model_folder(str(folder)) == folder
    return ModelSettings(path=str(folder))


def test_a_causal_model_gets_a_head_that_the_seed_decides(tmp_path: Path) -> None:
    settings = save(tmp_path, AutoModelForCausalLM.from_config(FAMILIES["llama"], attn_implementation="eager"))
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(load_reward_policy(settings, longest=64).pretrained.get_submodule("score").weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].shape == (1, 32)


def test_a_reward_model_keeps_its_head(tmp_path: Path) -> None:
    model = reward_model(FAMILIES["llama"])
    loaded = load_reward_policy(save(tmp_path, model), longest=64)
    assert torch.equal(loaded.pretrained.get_submodule("score").weight, model.score.weight)


def test_a_head_of_several_labels_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig(**{**FAMILIES["llama"].to_dict(), "num_labels": 3})
    settings = save(tmp_path, AutoModelForSequenceClassification.from_config(config))
    with pytest.raises(UserError, match="a head of 3 labels, a reward model has one"):
        load_reward_policy(settings, longest=64)


def test_transformers_reads_the_reward_at_eos_though_padding_is_eos(tmp_path: Path) -> None:
    config = LlamaConfig(**{**FAMILIES["llama"].to_dict(), "pad_token_id": 2})
    policy = load_reward_policy(save(tmp_path, AutoModelForCausalLM.from_config(config)), longest=64)
    with torch.no_grad():
        found = respond(policy, pack(EXAMPLES, whole_responses=True)).rewards
    assert found is not None
    policy.use_layout("padded")  # which is the model's own attention
    assert found.tolist() == pytest.approx(own_rewards(policy.pretrained), rel=1e-4, abs=1e-5)
