"""Pairs as Anthropic's HH has them, any number of them, the same on every machine; and a tokenizer for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

HH = Path(__file__).resolve().parents[3] / "shared" / "data" / "hh_harmless" / "train.jsonl.gz"
"""Real pairs, where they lie beside the repository."""

# Characters of most prompts and answers of hh_harmless, for machines without the file.
LENGTHS = {"prompt": (25, 900), "chosen": (20, 420), "rejected": (20, 400)}
WORDS = "the a of to and is in it you that what how do can should people time way day thing man world life hand part"

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_pairs(file: Path, count: int, hh: Path, seed: int = 0) -> int:
    """`count` pairs as JSON lines; returns the bytes written. hh: a file of real ones, or one that is not there.

    Real rows give the lengths and the words: row n has the turns of a real row, each word exchanged with a probability
    of a third for one drawn from all, and a number in front, so that no two prompts are the same.
    """
    words, rows = _material(hh) if hh.is_file() else _made()
    random = np.random.Generator(np.random.Philox(seed))
    with open(file, "w", encoding="utf-8") as out:
        for start in range(0, count, 1024):
            for number in range(start, min(count, start + 1024)):
                prompt, chosen, rejected = rows[int(random.integers(len(rows)))]
                asked = f"\n\nHuman: ({number})" + _mixed(prompt.removeprefix("\n\nHuman:"), words, random)
                row = {
                    "chosen": asked + "\n\nAssistant: " + _mixed(chosen, words, random),
                    "rejected": asked + "\n\nAssistant: " + _mixed(rejected, words, random) + ".",
                }
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return file.stat().st_size


def _mixed(text: str, words: list[str], random: np.random.Generator) -> str:
    parts = text.split(" ")
    draws = random.integers(0, 3 * len(words), len(parts))
    return " ".join(
        words[draw] if draw < len(words) and part.isalpha() else part for part, draw in zip(parts, draws.tolist())
    )


def _material(hh: Path) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Words to draw from, and (prompt, chosen, rejected) of real rows."""
    from prefopt.data.load import read_rows
    from prefopt.settings import SourceSettings

    rows = []
    for row in read_rows(SourceSettings(path=str(hh))):
        chosen, rejected = row.value["chosen"], row.value["rejected"]
        prompt, mark, answer = chosen.rpartition("\n\nAssistant: ")
        if mark and answer and rejected.startswith(prompt + mark):
            rows.append((prompt, answer, rejected[len(prompt + mark) :]))
    words = sorted({word for row in rows for text in row for word in text.split() if word.isalpha()})
    return words, rows


def _made() -> tuple[list[str], list[tuple[str, str, str]]]:
    words = WORDS.split()
    random = np.random.Generator(np.random.Philox(1))

    def text(low: int, high: int) -> str:
        length = int(low * (high / low) ** random.random())  # log-uniform, as lengths of texts nearly are
        return " ".join(words[i] for i in random.integers(0, len(words), max(1, length // 5)))

    texts = [[text(*LENGTHS[name]) for name in ("prompt", "chosen", "rejected")] for _ in range(512)]
    return words, [(f"\n\nHuman: {prompt}", chosen, rejected) for prompt, chosen, rejected in texts]


def save_tokenizer(folder: Path, pairs: Path) -> Path:
    """A byte-level BPE of 8,000 pieces with a ChatML template, trained on the first rows of `pairs`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=8000, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_texts(pairs), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=TEMPLATE)
    fast.save_pretrained(folder)
    return folder


def _texts(pairs: Path) -> Iterator[str]:
    with open(pairs, encoding="utf-8") as file:
        for line in islice(file, 2000):
            yield json.loads(line)["chosen"]
