"""Tiny tokenizers, made here: byte-level BPE without BOS, with BOS, and with a chat template; and files of rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

WORDS = [
    "Human: what is the colour of the sky? Assistant: The sky is blue, my friend.",
    "<s> user assistant system hello world good bad answer question one two three four five six seven eight",
    "Please write a poem about the sea and the wind. I cannot help with that. Yes, of course!",
]


def _bpe(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(WORDS * 4, trainer)
    return tokenizer


def _save(tokenizer: Tokenizer, path: Path, **special: str) -> str:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def no_bos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a byte-level BPE with EOS </s>, that puts nothing in front of a text and has no template."""
    return _save(_bpe(["</s>"]), tmp_path_factory.mktemp("no_bos"), eos_token="</s>")


@pytest.fixture(scope="session")
def with_bos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same, with a BOS <s> (id 0) that it puts in front of a text and an EOS (id 1) that it puts behind."""
    tokenizer = _bpe(["<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return _save(tokenizer, tmp_path_factory.mktemp("with_bos"), bos_token="<s>", eos_token="</s>")


CHATML = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def chat(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer with BOS <s> and a chat template that closes every turn with EOS <|im_end|> and a newline."""
    tokenizer = _bpe(["<s>", "<|im_start|>", "<|im_end|>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    special = {"bos_token": "<s>", "eos_token": "<|im_end|>", "chat_template": CHATML}
    return _save(tokenizer, tmp_path_factory.mktemp("chat"), **special)


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., str]:
    """Writes rows to a .jsonl file and gives its path."""

    def write(rows: list[Any], name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write
