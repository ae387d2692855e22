"""What autograd saves in a real forward pass is, to the byte, what the plan says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from prefopt.batch import Batch, Encoded
from prefopt.model import logps
from prefopt.model.forward import respond
from prefopt.model.load import with_adapters
from prefopt.model.policy import Policy
from prefopt.pack import pack
from prefopt.plan import activations as plan
from prefopt.plan.activations import Geometry, Precision, geometry
from prefopt.plan.shape import Shape, shape_of
from prefopt.settings import LoraSettings, ModelSettings

SIZES = {
    "vocab_size": 211,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
KINDS = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
KINDS |= {"qwen3": (Qwen3Config, Qwen3ForCausalLM)}
PROMPT, RESPONSES, ROWS = 96, [33, 21], 2


def batch_of(shared: bool = True) -> Batch:
    rows = [
        Encoded(str(n), n, list(range(PROMPT)), [list(range(k)) for k in RESPONSES], [(0, 1)], 0) for n in range(ROWS)
    ]
    return pack(rows, shared)


def planned(shared: bool = True) -> Geometry:
    one = geometry(PROMPT, RESPONSES, shared=shared, flex=False, prompt_logps=False)
    return one + one


@contextlib.contextmanager
def counting(policy: Policy, found: dict[int, int]) -> Iterator[None]:
    """Fills `found` with the bytes of every storage that autograd saves, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in policy.parameters()}
    alive = []

    def pack_hook(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack_hook, lambda tensor: tensor):
        yield


def saved_bytes(family: str, layers: int, dtype: torch.dtype, lora: int, autocast: bool, shared: bool = True) -> int:
    config, kind = KINDS[family]
    model: PreTrainedModel = kind(config(**SIZES, num_hidden_layers=layers)).to(dtype)
    if lora:
        model = with_adapters(model, LoraSettings(r=lora), "CAUSAL_LM")
    policy = Policy(model, "shared" if shared else "packed", bool(lora))
    found: dict[int, int] = {}
    with counting(policy, found), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        responses = respond(policy, batch_of(shared))
    assert responses.logps.requires_grad
    return sum(found.values())


def shape(family: str, lora: int, layers: int = 2) -> Shape:
    settings = ModelSettings(lora=LoraSettings(r=lora) if lora else None)
    return shape_of({"model_type": family, **SIZES, "num_hidden_layers": layers}, settings, "a test")


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize(("dtype", "autocast"), [("float32", False), ("bfloat16", False), ("float32", True)])
@pytest.mark.parametrize("lora", [0, 8])
def test_a_layer_saves_what_the_plan_says(family: str, dtype: str, autocast: bool, lora: int) -> None:
    two, three = (saved_bytes(family, n, getattr(torch, dtype), lora, autocast) for n in (2, 3))
    precision = Precision(weights=4 if dtype == "float32" else 2, adapters=4, autocast=autocast)
    sizes = [shape(family, lora, n) for n in (2, 3)]
    casts = plan.cast_weights(sizes[1], precision) - plan.cast_weights(sizes[0], precision)
    assert plan.layer_bytes(sizes[0], precision, planned()) + casts == three - two


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_whole_pass_saves_what_the_plan_says(dtype: str, shared: bool) -> None:
    saved = saved_bytes("llama", 2, getattr(torch, dtype), 0, False, shared)
    precision = Precision(weights=4 if dtype == "float32" else 2, adapters=4, autocast=False)
    sizes, batch = shape("llama", 0), planned(shared)
    kept = plan.activations(sizes, precision, batch, None).kept + plan.logits_bytes(sizes, precision, batch).kept
    assert kept == pytest.approx(saved, rel=0.003)  # ids of the tokens that are predicted, and the like


def test_recomputed_layers_keep_their_input() -> None:
    precision, batch = Precision(2, 2, False), planned()
    sizes = shape("llama", 0, layers=5)
    one = plan.layer_bytes(sizes, precision, batch)
    all_kept = plan.activations(sizes, precision, batch, None)
    every, second = (plan.activations(sizes, precision, batch, k) for k in (1, 2))
    inputs = 2 * 64 * batch.tokens
    assert all_kept.kept - every.kept == 5 * (one - inputs)
    assert all_kept.kept - second.kept == 3 * (one - inputs)
    assert every.backward > all_kept.backward
    on_host = plan.activations(sizes, precision, batch, 1, offload=True)
    assert (on_host.on_host, on_host.kept) == (5 * inputs, every.kept - 5 * inputs)


def test_logits_beyond_the_budget_come_in_chunks() -> None:
    assert plan.MAX_LOGITS == logps.MAX_LOGITS
    sizes = shape("llama", 0)
    few, many = Geometry(1000, 1000, 0, 500), Geometry(10**6, 10**6, 0, 10**6)
    whole = plan.logits_bytes(sizes, Precision(4, 4, False), few)
    assert (whole.kept, whole.backward, whole.is_chunked) == (4 * 500 * 211, 12 * 500 * 211, False)
    chunked = plan.logits_bytes(sizes, Precision(4, 4, False), many)
    assert (chunked.kept, chunked.backward, chunked.is_chunked) == (0, 12 * (2**26 // 211) * 211, True)
