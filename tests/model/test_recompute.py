"""Layers that are run again in the backward pass give the same numbers and keep less."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import LlamaConfig, LlamaForCausalLM

from prefopt.batch import Encoded
from prefopt.errors import UserError
from prefopt.model.forward import respond
from prefopt.model.load import load_policy
from prefopt.model.policy import Policy
from prefopt.model.recompute import recompute_layers
from prefopt.pack import pack
from prefopt.settings import LoraSettings, ModelSettings
from prefopt.train.quiet import quiet_libraries

EXAMPLES = [
    Encoded("a", 0, [1, 5, 6, 7], [[8, 9, 2], [10, 2]], [(0, 1)], 0),
    Encoded("b", 1, [1, 11], [[12, 13, 14, 15, 2], [2], [16, 17, 2]], [(0, 1)], 0),
]
LAYERS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers, so that every third one is another choice than every second."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=61, num_hidden_layers=LAYERS, **sizes)).save_pretrained(folder)
    return folder


def loss_gradient_and_bytes(folder: Path, every: int | None, lora: bool, layout: str = "shared"):
    """The sum of log-probabilities, its whole gradient, and the bytes of activations kept for the backward pass."""
    settings = ModelSettings(path=str(folder), checkpoint_every=every, layout=layout)
    settings.lora = LoraSettings(r=4, dropout=0.3) if lora else None
    torch.manual_seed(1)
    policy = load_policy(settings, longest=32).train()
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:  # they start at zero, where the gradient of A vanishes
                parameter.normal_(std=0.1)
    weights = {p.untyped_storage().data_ptr() for p in policy.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(2)  # of the dropout
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = respond(policy, pack(EXAMPLES, share_prompts=layout == "shared")).logps.sum()
    during_forward = sum(kept.values())
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in policy.parameters() if p.requires_grad])
    return loss.item(), gradient, during_forward


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
@pytest.mark.parametrize("lora", [False, True], ids=["all_weights", "lora_with_dropout"])
def test_loss_and_gradient_are_those_without_recomputation(folder: Path, lora: bool, layout: str) -> None:
    loss, gradient, _ = loss_gradient_and_bytes(folder, None, lora, layout)
    for every in (1, 2, 3):
        again_loss, again_gradient, _ = loss_gradient_and_bytes(folder, every, lora, layout)
        assert again_loss == pytest.approx(loss, rel=1e-6)
        assert (again_gradient - gradient).norm() <= 1e-6 * gradient.norm()
    assert gradient.norm() > 1


@pytest.mark.parametrize("lora", [False, True], ids=["all_weights", "lora_with_dropout"])
def test_less_is_kept_the_more_layers_are_recomputed(folder: Path, lora: bool) -> None:
    everything, third, second, all_layers = (
        loss_gradient_and_bytes(folder, every, lora)[2] for every in (None, 3, 2, 1)
    )
    # Of four layers, every third is two of them (the first and the fourth), every second two, every one four.
    assert third == second
    assert everything - all_layers == pytest.approx(2 * (everything - second), rel=0.05)
    assert all_layers < everything / 3


def test_the_layers_chosen_are_the_first_and_every_kth_after_it(folder: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(folder)
    recompute_layers(model, 3)
    assert [layer.gradient_checkpointing for layer in model.model.layers] == [True, False, False, True]


def test_a_frozen_embedding_is_not_asked_for_a_gradient(folder: Path) -> None:
    policy = load_policy(ModelSettings(path=str(folder), checkpoint_every=1, lora=LoraSettings(r=4)), longest=32)
    seen = []
    embedding = policy.pretrained.get_input_embeddings()
    embedding.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    respond(policy.train(), pack(EXAMPLES)).logps.sum().backward()
    assert seen == [False]


def test_a_family_without_such_layers_is_refused() -> None:
    model = torch.nn.Module()
    model.config = LlamaConfig()
    with pytest.raises(UserError, match=r"model\.checkpoint_every=2.*llama"):
        recompute_layers(model, 2)  # type: ignore[arg-type]


def test_adapters_bring_no_deprecation_warning(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        quiet_libraries()
        policy = load_policy(ModelSettings(path=str(folder), checkpoint_every=1, lora=LoraSettings(r=4)), longest=32)
    assert isinstance(policy, Policy)
