"""Answers to held-out prompts, before and after training, for people to read and for judges to compare."""

from __future__ import annotations

from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from prefopt.settings import SampleSettings
from prefopt.train.engine import Engine
from prefopt.train.rows import Rows

PROMPTS_AT_ONCE = 64


class Answer(NamedTuple):
    """What a model answered.

    text: without special tokens. tokens: without the one that ended it. stopped: the model ended it, not the limit.
    """

    text: str
    tokens: list[int]
    stopped: bool


def sample(
    engine: Engine, tokenizer: PreTrainedTokenizerBase, rows: Rows, settings: SampleSettings, seed: int
) -> list[Answer]:
    """One answer to each of the first `settings.count` prompts. Every rank must call; all get all answers.

    The prompts are the token ids that training saw. The same seed gives the same answers for the same weights and
    number of ranks, and the random states of training are left as they were.
    """
    count = min(settings.count, len(rows))
    mine = list(range(count))[engine.rank :: engine.world_size]
    longest_share = -(-count // engine.world_size)
    answers: dict[int, Answer] = {}
    devices = [engine.device] if engine.device.type == "cuda" else []
    with (
        engine.kind.whole_weights(),
        engine.policy.generating() as model,
        torch.random.fork_rng(devices),
        torch.no_grad(),
    ):
        torch.manual_seed(seed + engine.rank)
        for start in range(0, longest_share, PROMPTS_AT_ONCE):
            places = mine[start : start + PROMPTS_AT_ONCE]
            prompts = [rows[p].prompt for p in places or [0]]
            found = _generate(model, tokenizer, prompts, settings, engine)
            answers.update(zip(places, found, strict=False))
    merged = {place: answer for part in engine.gather(answers) for place, answer in part.items()}
    return [merged[place] for place in range(count)]


def _generate(model, tokenizer, prompts: list[list[int]], settings: SampleSettings, engine: Engine) -> list[Answer]:
    longest = max(len(p) for p in prompts)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=engine.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=engine.device)
    greedy = settings.temperature == 0
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=settings.max_new_tokens,
        do_sample=not greedy,
        temperature=None if greedy else settings.temperature,
        top_p=None if greedy else settings.top_p,
        top_k=None if greedy else 0,
        pad_token_id=pad,
        synced_gpus=engine.kind.splits_weights and engine.world_size > 1,
    )
    texts = tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)
    ends = _ends(engine, tokenizer)
    return [_answer(text, row, ends) for text, row in zip(texts, output[:, longest:].tolist(), strict=True)]


def _ends(engine: Engine, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens at which `generate` stops."""
    known = engine.policy.pretrained.generation_config.eos_token_id  # one, several or none
    known = tokenizer.eos_token_id if known is None else known
    return set(known) if isinstance(known, list) else {known}


def _answer(text: str, row: list[int], ends: set[int]) -> Answer:
    """row: what was generated; behind the end it is filled up."""
    end = next((place for place, token in enumerate(row) if token in ends), None)
    return Answer(text, row[:end], end is not None)
