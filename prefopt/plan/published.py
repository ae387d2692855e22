"""Facts that the hub publishes of models and data sets, for machines that cannot ask it."""

from __future__ import annotations

from typing import Any, NamedTuple


def _llama3(hidden: int, inner: int, layers: int, heads: int, tied: bool = False) -> dict[str, Any]:
    return _shape("llama", hidden, inner, layers, heads, 8, 128_256, tied)


def _shape(
    family: str, hidden: int, inner: int, layers: int, heads: int, key_heads: int, vocabulary: int, tied: bool = False
) -> dict[str, Any]:
    """Keys of transformers' config.json; what they do not say is the family's default."""
    return {
        "model_type": family,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }


_LLAMA3_8B = _llama3(4096, 14_336, 32, 32)
_LLAMA3_70B = _llama3(8192, 28_672, 80, 64)
_MISTRAL_7B = _shape("mistral", 4096, 14_336, 32, 32, 8, 32_000)
_LLAMA_7B = _shape("llama", 4096, 11_008, 32, 32, 32, 32_000)
_LLAMA2_13B = _shape("llama", 5120, 13_824, 40, 40, 40, 32_000)
_QWEN25_7B = _shape("qwen2", 3584, 18_944, 28, 28, 4, 152_064)

MODELS: dict[str, dict[str, Any]] = {
    "meta-llama/Meta-Llama-3-8B": _LLAMA3_8B,
    "meta-llama/Meta-Llama-3-8B-Instruct": _LLAMA3_8B,
    "meta-llama/Meta-Llama-3-70B-Instruct": _LLAMA3_70B,
    "meta-llama/Llama-3.1-8B": _LLAMA3_8B,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA3_8B,
    "meta-llama/Llama-3.1-70B-Instruct": _LLAMA3_70B,
    "meta-llama/Llama-3.2-1B": _llama3(2048, 8192, 16, 32, tied=True),
    "meta-llama/Llama-3.2-1B-Instruct": _llama3(2048, 8192, 16, 32, tied=True),
    "meta-llama/Llama-3.2-3B-Instruct": _llama3(3072, 8192, 28, 24, tied=True),
    "mistralai/Mistral-7B-v0.1": _MISTRAL_7B,
    "mistralai/Mistral-7B-Instruct-v0.2": _MISTRAL_7B,
    "mistralai/Mistral-7B-Instruct-v0.3": {**_MISTRAL_7B, "vocab_size": 32_768},
    "alignment-handbook/zephyr-7b-sft-full": _MISTRAL_7B,
    "HuggingFaceH4/zephyr-7b-beta": _MISTRAL_7B,
    "PKU-Alignment/alpaca-7b-reproduced": {**_LLAMA_7B, "vocab_size": 32_001},  # with a pad token
    "princeton-nlp/Llama-3-Base-8B-SFT": _LLAMA3_8B,
    "RLHFlow/LLaMA3-SFT": _LLAMA3_8B,
    "allenai/Llama-3.1-Tulu-3-8B-SFT": {**_LLAMA3_8B, "vocab_size": 128_264},  # with tokens of its own
    "allenai/Llama-3.1-Tulu-3-70B-SFT": {**_LLAMA3_70B, "vocab_size": 128_264},
    "meta-llama/Llama-2-7b-hf": _LLAMA_7B,
    "lmsys/vicuna-7b-v1.5": _LLAMA_7B,
    "haoranxu/ALMA-13B-Pretrain": _LLAMA2_13B,
    "HuggingFaceH4/mistral-7b-sft-beta": _MISTRAL_7B,
    "mistral-community/Mixtral-8x22B-v0.1": {
        **_shape("mixtral", 6144, 16_384, 56, 48, 8, 32_000),
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    "loubnabnl/smollm2-1.7B-sft": _shape("llama", 2048, 8192, 24, 32, 32, 49_152, tied=True),
    "HuggingFaceTB/SmolLM3-3B-checkpoints": _shape("smollm3", 2048, 11_008, 36, 16, 4, 128_256, tied=True),
    "EleutherAI/pythia-2.8b": {
        key: value
        for key, value in _shape("gpt_neox", 2560, 10_240, 32, 32, 32, 50_304).items()
        if key != "num_key_value_heads"  # which the family does not have
    },
    "Qwen/Qwen2.5-0.5B-Instruct": _shape("qwen2", 896, 4864, 24, 14, 2, 151_936, tied=True),
    "Qwen/Qwen2.5-1.5B-Instruct": _shape("qwen2", 1536, 8960, 28, 12, 2, 151_936, tied=True),
    "Qwen/Qwen2.5-7B-Instruct": _QWEN25_7B,
    "Qwen/Qwen3-8B": {**_shape("qwen3", 4096, 12_288, 36, 32, 8, 151_936), "head_dim": 128},
    "HuggingFaceH4/zephyr-7b-gemma-sft-v0.1": {
        **_shape("gemma", 3072, 24_576, 28, 16, 16, 256_000, tied=True),
        "head_dim": 256,
    },
    "google/gemma-2-9b-it": {**_shape("gemma2", 3584, 14_336, 42, 16, 8, 256_000, tied=True), "head_dim": 256},
}
"""Name to shape, as config.json of each repository has it. A revision may have another; a downloaded file wins."""


class PublishedSet(NamedTuple):
    """splits: rows of each split that recipes read. prompt, response: mean tokens; source: who says so."""

    splits: dict[str, int]
    prompt: int
    response: int
    source: str


_ULTRAFEEDBACK = "mean lengths of UltraFeedback, arXiv 2310.01377, not looked up again"

DATA_SETS: dict[str, PublishedSet] = {
    "princeton-nlp/llama3-ultrafeedback": PublishedSet({"train": 59_876, "test": 1961}, 185, 305, _ULTRAFEEDBACK),
    "HuggingFaceH4/ultrafeedback_binarized": PublishedSet(
        {"train_prefs": 61_135, "test_prefs": 2000}, 185, 305, _ULTRAFEEDBACK
    ),
    "argilla/ultrafeedback-binarized-preferences-cleaned": PublishedSet({"train": 60_917}, 185, 305, _ULTRAFEEDBACK),
    "HuggingFaceH4/ultrachat_200k": PublishedSet(
        {"train_sft": 207_865, "test_sft": 23_110},
        1100,
        367,
        "1467 tokens in 4 turns, UltraChat, arXiv 2305.14233, not looked up again; the last answer a quarter",
    ),
    "Anthropic/hh-rlhf": PublishedSet(
        {"train": 160_800, "test": 8552}, 143, 54, "mean lengths of its harmless half, docs/benchmarks.md"
    ),
    "hendrydong/preference_700K": PublishedSet({"train": 700_000}, 185, 305, f"not published: {_ULTRAFEEDBACK}"),
    "princeton-nlp/mistral-instruct-ultrafeedback": PublishedSet(
        {"train": 60_000, "test": 2000}, 185, 305, f"about 60,000 rows, not looked up; {_ULTRAFEEDBACK}"
    ),
    "princeton-nlp/llama3-ultrafeedback-armorm": PublishedSet(
        {"train": 60_000, "test": 2000}, 185, 305, f"about 60,000 rows, not looked up; {_ULTRAFEEDBACK}"
    ),
    "princeton-nlp/gemma2-ultrafeedback-armorm": PublishedSet(
        {"train": 60_000, "test": 2000}, 185, 305, f"about 60,000 rows, not looked up; {_ULTRAFEEDBACK}"
    ),
    "argilla/distilabel-capybara-dpo-7k-binarized": PublishedSet(
        {"train": 7563}, 600, 305, f"lengths not published: several turns of {_ULTRAFEEDBACK}"
    ),
    "argilla/dpo-mix-7k": PublishedSet({"train": 6750, "test": 750}, 185, 305, f"not published: {_ULTRAFEEDBACK}"),
    "allenai/llama-3.1-tulu-3-8b-preference-mixture": PublishedSet(
        {"train": 271_409}, 185, 305, f"lengths not published: {_ULTRAFEEDBACK}"
    ),
    "allenai/llama-3.1-tulu-3-70b-preference-mixture": PublishedSet(
        {"train": 334_302}, 185, 305, f"lengths not published: {_ULTRAFEEDBACK}"
    ),
    "HuggingFaceTB/smoltalk2": PublishedSet(
        {
            "llama_3.1_tulu_3_8b_preference_mixture_no_think": 230_501,
            "tulu_3_8b_pref_mix_Qwen3_32B_Qwen3_0.6B_think": 216_385,
        },
        185,
        900,
        f"lengths not published: {_ULTRAFEEDBACK}, and 600 of thoughts in every other row",
    ),
    "RLHFlow/pair-preference-dataset-mix1": PublishedSet(
        {"train": 700_000}, 185, 305, f"rows not looked up, lengths not published: {_ULTRAFEEDBACK}"
    ),
    "hiyouga/DPO-En-Zh-20k": PublishedSet({"train": 10_000}, 185, 305, f"not published: {_ULTRAFEEDBACK}"),
}
"""Name to size, written down without the hub at hand: see docs/plan.md for what was looked up again."""
