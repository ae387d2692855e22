"""Rows of preference pairs for benchmarks: real ones from ../shared/data, and synthetic mixes of lengths."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


class PairRow(NamedTuple):
    """A prompt and two responses, as text that is concatenated."""

    prompt: str
    chosen: str
    rejected: str


def hh() -> list[PairRow]:
    """Dialogues of HH harmless: everything up to the last answer is the prompt."""
    turn = "\n\nAssistant:"
    rows = []
    with gzip.open(DATA / "hh_harmless" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        for record in map(json.loads, file):
            chosen, rejected = (record[k].rpartition(turn) for k in ("chosen", "rejected"))
            if chosen[0] == rejected[0]:
                rows.append(PairRow(chosen[0] + turn, chosen[2], rejected[2]))
    return rows


def qa() -> list[PairRow]:
    """Long-form question answering: passages and question, and the two answers of the first human comparison."""
    path = DATA / "qa_feedback" / "train.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        records = json.load(file)
    rows = []
    for record in records:
        verdict = record["preference"][0]
        if verdict:
            passages = "\n\n".join(" ".join(passage) for passage in record["passages"])
            prompt = f"{passages}\n\nQuestion: {record['question']}\nAnswer:"
            better, worse = (1, 2) if verdict == 1 else (2, 1)
            rows.append(PairRow(prompt, " " + record[f"prediction {better}"], " " + record[f"prediction {worse}"]))
    return rows


def chat() -> list[PairRow]:
    """Chat: long prompts and long answers of assistants."""
    with gzip.open(DATA / "llamafactory" / "dpo_en_demo.json.gz", "rt", encoding="utf-8") as file:
        records = json.load(file)
    rows = []
    for record in records:
        prompt = "\n\n".join(f"{turn['from']}: {turn['value']}" for turn in record["conversations"])
        rows.append(PairRow(f"{prompt}\n\nassistant:", *(" " + record[k]["value"] for k in ("chosen", "rejected"))))
    return rows


def mix(prompt: int, response: int, count: int = 256, seed: int = 0) -> list[PairRow]:
    """Made-up words; lengths are log-normal around `prompt` and `response` words, with a spread of e^0.5."""
    source = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprstv" for b in "aeiou"]

    def words(middle: int) -> str:
        length = max(1, round(source.lognormvariate(0, 0.5) * middle))
        return "".join(" " + "".join(source.choices(syllables, k=2)) for _ in range(length))

    return [PairRow(words(prompt), words(response), words(response)) for _ in range(count)]


SETS: dict[str, Callable[[], list[PairRow]]] = {
    "hh": hh,
    "qa": qa,
    "chat": chat,
    "mix_short": lambda: mix(60, 20),
    "mix_long": lambda: mix(200, 100),
}


def take(name: str, count: int, longest: int, tokenizer: object, seed: int = 0) -> list[PairRow]:
    """`count` rows of a set in random order that both tools read alike.

    Left out: rows above `longest` tokens, empty or equal responses, and rows where the prompt's last token would merge
    with a response's first, which the tools settle differently.

    Raises: ValueError where the set has fewer.
    """
    rows = SETS[name]()
    random.Random(seed).shuffle(rows)
    kept = []
    for row in rows:
        prompt = _ids(tokenizer, row.prompt)
        wholes = [_ids(tokenizer, row.prompt + response) for response in (row.chosen, row.rejected)]
        fits = max(map(len, wholes)) < longest
        if fits and row.chosen.strip() and row.rejected.strip() and _read_alike(prompt, wholes):
            kept.append(row)
        if len(kept) == count:
            return kept
    raise ValueError(f"{name} has {len(kept)} rows that fit, {count} are needed")


def _read_alike(prompt: list[int], wholes: list[list[int]]) -> bool:
    return wholes[0] != wholes[1] and all(whole[: len(prompt)] == prompt for whole in wholes)


def _ids(tokenizer: object, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
