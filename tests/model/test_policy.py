"""A packed, prompt-shared forward is the model's own forward, for every family."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from prefopt.batch import Encoded
from prefopt.model import logps
from prefopt.model.forward import respond
from prefopt.model.policy import Policy
from prefopt.model.recompute import recompute_layers
from prefopt.pack import pack

SMALL = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES = {
    "llama": LlamaConfig(**SMALL),
    "mistral_sliding": MistralConfig(**SMALL, sliding_window=5),
    "qwen2": Qwen2Config(**SMALL),
    "qwen2_sliding": Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=4, max_window_layers=1),
    "qwen3": Qwen3Config(**SMALL, head_dim=8),
    "gemma2": Gemma2Config(
        **SMALL, head_dim=8, sliding_window=4, attn_logit_softcapping=2.0, final_logit_softcapping=3.0
    ),
    "gemma3": Gemma3TextConfig(
        **SMALL, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
    ),
    "phi3": Phi3Config(**SMALL, sliding_window=6),
    "gpt2": GPT2Config(
        vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=64, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    ),
    "gpt_neox": GPTNeoXConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64,
    ),
}  # fmt: skip

EXAMPLES = [
    Encoded("a", 0, [1, 5, 9, 13], [[7, 8, 2], [11, 12, 14, 15, 16, 2]], [(0, 1)], 0),
    Encoded("b", 1, [1], [[2]], [], 0),
    Encoded(
        "c", 2, [1, 30, 31, 32, 33, 34, 35, 36], [[40, 2], [2], [41, 42, 43, 44, 2], [45, 46, 2]], [(0, 1), (2, 3)], 2
    ),
    Encoded("d", 3, [1, 0, 2, 0], [[50, 51, 2], [50, 51, 2], [50, 52, 2]], [(2, 0)], 2),
]


def make_model(config, seed: int = 0):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    # Gemma 2's own eager attention is NaN on padding in float64 (its mask overflows in the float32 softmax)
    model = model if config.model_type == "gemma2" else model.double()
    with torch.no_grad():
        for parameter in model.parameters():  # larger than the usual start, so that attention matters
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def own_logps(model, example: Encoded) -> list[list[float]]:
    """Each response by the model's own forward, one unpadded sequence at a time."""
    result = []
    for response in example.responses:
        ids = torch.tensor([example.prompt + response])
        logits = model(input_ids=ids).logits[0].double().log_softmax(-1)
        start = len(example.prompt) - 1
        result.append([logits[start + i, token].item() for i, token in enumerate(response)])
    return result


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_layout_gives_the_models_own_log_probabilities(family: str, layout: str) -> None:
    model = make_model(FAMILIES[family]).eval()
    expected = [token for e in EXAMPLES for response in own_logps(model, e) for token in response]
    batch = pack(EXAMPLES, share_prompts=layout == "shared")
    token_logps = Policy(model, layout)(batch).token_logps
    # transformers keeps norms, rotary tables and softmax in float32 even for a double model
    torch.testing.assert_close(token_logps.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_with_shared_prompts_equals_repeated_prompts(family: str) -> None:
    gradients = []
    for layout in ("shared", "padded"):
        model = make_model(FAMILIES[family]).train()
        responses = respond(Policy(model, layout), pack(EXAMPLES, share_prompts=layout == "shared"))
        responses.mean_logps.square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    shared, repeated = gradients
    assert (shared - repeated).norm() <= 1e-5 * repeated.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_run_again_change_nothing(family: str) -> None:
    gradients = []
    for recomputed in (False, True):
        model = make_model(FAMILIES[family]).train()
        if recomputed:
            recompute_layers(model, 1)
        respond(Policy(model), pack(EXAMPLES)).logps.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_chunks_of_the_head_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for most in (logps.MAX_LOGITS, 61 * 4):
        monkeypatch.setattr(logps, "MAX_LOGITS", most)
        model = make_model(FAMILIES["llama"])
        responses = respond(Policy(model), pack(EXAMPLES))
        responses.logps.sum().backward()
        results.append((responses.token_logps.detach(), model.lm_head.weight.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


def test_prompt_tokens_are_predicted_from_the_second_on() -> None:
    model = make_model(FAMILIES["llama"]).eval()
    expected = []
    for example in EXAMPLES:
        logits = model(input_ids=torch.tensor([example.prompt])).logits[0].double().log_softmax(-1)
        expected += [logits[i, token].item() for i, token in enumerate(example.prompt[1:])]
    for shared in (True, False):
        batch = pack(EXAMPLES, share_prompts=shared, prompt_logps=True)
        prompt_logps = Policy(model, "shared" if shared else "packed")(batch).prompt_logps
        torch.testing.assert_close(prompt_logps, torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=2e-5)


def test_log_probabilities_of_a_bfloat16_model_are_float32() -> None:
    model = make_model(FAMILIES["llama"]).to(torch.bfloat16)
    responses = respond(Policy(model), pack(EXAMPLES))
    assert responses.token_logps.dtype == torch.float32
    assert responses.logps.dtype == torch.float64
