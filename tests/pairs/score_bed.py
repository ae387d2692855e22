"""What tests of scorers share: models on disk, Examples, a place to work in, and plain forwards to compare with."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from prefopt.pairs.registry import make_stage
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import Judged, Place
from prefopt.records import Candidate, Example, Message

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import make_model

__all__ = ["make_model"]


def place(**settings: Any) -> Place:
    """A place on the CPU that says nothing."""
    return Place(PairsSettings(**settings), "cpu", "", lambda line: None)


def score(stage: dict[str, Any], where: Place, *examples: Example) -> list[Judged]:
    """What a stage gives for a chunk."""
    return make_stage("score", stage).open(where)(examples)


def plain(prompt: str, *texts: str, name: str = "f.jsonl:1", target: str | None = None) -> Example:
    return Example(name, (Message("user", prompt),), tuple(Candidate(text) for text in texts), False, target)


def chat(prompt: str, *texts: str, name: str = "f.jsonl:2") -> Example:
    return Example(name, (Message("user", prompt),), tuple(Candidate(text) for text in texts))


def with_head(source: Path, folder: Path, labels: list[str], scale: float = 1.0, **ids: int) -> Path:
    """The model of `source` with a seeded head of these labels, and its tokenizer, in `folder`."""
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=len(labels), id2label=dict(enumerate(labels)), **ids
    )
    with torch.no_grad():
        model.score.weight.normal_(std=scale)
    model.save_pretrained(folder)
    for file in source.glob("tokenizer*"):
        shutil.copy(file, folder)
    if (source / "chat_template.jinja").exists():
        shutil.copy(source / "chat_template.jinja", folder)
    return folder


def ids_of(tokenizer: PreTrainedTokenizerBase, example: Example, text: str) -> tuple[list[int], list[int]]:
    """Prompt and response as the tokenizer gives them, without any of our own code."""
    if example.is_chat:
        turns = [{"role": m.role, "content": m.content} for m in example.prompt]
        before = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": text}], tokenize=False)
        prompt, both = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (before, whole))
    else:
        words = example.prompt[0].content
        start = [tokenizer.bos_token_id] if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else []
        prompt, both = (start + tokenizer(t, add_special_tokens=False)["input_ids"] for t in (words, words + text))
        both = [*both, tokenizer.eos_token_id]
    assert both[: len(prompt)] == prompt
    return prompt, both[len(prompt) :]


def own_logps(folder: Path, example: Example, words: list[int] | None = None) -> list[float]:
    """transformers' own sums, one sequence at a time: of each response, or of `words` behind each."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for candidate in example.candidates:
        prompt, response = ids_of(tokenizer, example, candidate.text)
        if words is not None:
            prompt, response = prompt + response, words
        ids = torch.tensor([prompt + response])
        with torch.no_grad():
            logps = model(input_ids=ids).logits[0].double().log_softmax(-1)
        places = range(len(prompt) - 1, len(prompt) + len(response) - 1)
        found.append(sum(logps[p, t].item() for p, t in zip(places, response)))
    return found


def own_heads(folder: Path, example: Example) -> list[list[float]]:
    """transformers' own numbers of every label, one sequence at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for candidate in example.candidates:
        prompt, response = ids_of(tokenizer, example, candidate.text)
        with torch.no_grad():
            found.append(model(input_ids=torch.tensor([prompt + response])).logits[0].tolist())
    return found
