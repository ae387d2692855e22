"""Llama-shaped models with random weights, and a tokenizer trained on the benchmark's own texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.pair_rows import SETS, mix

if TYPE_CHECKING:
    from transformers import LlamaConfig


class Shape(NamedTuple):
    """A Llama: 28M of the CPU benchmark, 1B and 8B as Llama 3 has them (on a GPU)."""

    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    tied: bool


SHAPES = {
    "28m": Shape(512, 1408, 8, 8, 4, 8192, True),
    "1b": Shape(2048, 8192, 16, 32, 8, 128_256, True),
    "8b": Shape(4096, 14_336, 32, 32, 8, 128_256, False),
}


def make_model(folder: Path, shape: Shape, texts: list[str], dtype: str = "float32") -> None:
    """Writes model and tokenizer; the same ones each time. No BOS, so that no tool adds one where another does not."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=8192, special_tokens=["</s>", "<pad>"], initial_alphabet=alphabet)
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="<pad>")
    tokenizer.save_pretrained(folder)
    config = config_of(shape)
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    LlamaForCausalLM(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)


def config_of(shape: Shape) -> LlamaConfig:
    """transformers' configuration of a shape, without special tokens."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        max_position_embeddings=8192,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def texts_of_all_sets() -> list[str]:
    """What the tokenizer is trained on; synthetic words where the real sets are absent."""
    found = []
    for rows in SETS.values():
        try:
            found += [text for row in rows() for text in row]
        except FileNotFoundError:
            found += [text for row in mix(60, 20) for text in row]
    return found
