"""Answers as the policy said them, token by token, beside what training would encode their texts as."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prefopt.pairs.chance import key_of
from prefopt.pairs.encode import CandidateEncoder
from prefopt.pairs.policies import open_policy
from prefopt.pairs.sampling import Drawing, sample, uniforms_of
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import Place
from prefopt.records import Candidate, Example


class Answer(NamedTuple):
    """said: the ids that were generated. text: what they decode to. trained_on: the ids of that text's row, or why it
    has none. prompt, trained_prompt: the ids before them, as generated from and as trained on.
    """

    said: list[int]
    text: str
    trained_on: list[int] | str
    prompt: list[int]
    trained_prompt: list[int]

    @property
    def comes_back(self) -> bool:
        """Whether training sees the very tokens that the policy chose."""
        return self.trained_on == self.said and self.trained_prompt == self.prompt


def answers(
    model: Path | str, prompts: Sequence[Example], notes: Path, n: int, tokens: int, stop: Sequence[str] = ()
) -> list[Answer]:
    """n answers of at most `tokens` tokens to each prompt, those that can be written as text, closed by EOS as training
    closes them. stop: tokens that end an answer besides.
    """
    settings = PairsSettings(policy=str(model), max_prompt_tokens=200)
    asked = open_policy(str(model), Place(settings, "cpu", str(notes)), stop, tokens)
    encoder = CandidateEncoder(asked.tokenizer, None, str(model))
    ids, places, refused = asked.encode(prompts)
    assert not refused
    uniforms = uniforms_of(7, 0, [key_of(prompts[place]) for place in places], tokens)
    with asked.lanes() as lanes:
        found = sample(lanes, ids, n, Drawing(1.0, 0, 1.0, tokens, asked.ends), uniforms, 4096)
    made = []
    for place, prompt, of_prompt in zip(places, ids, found, strict=True):
        example = prompts[place]
        for one in of_prompt:
            text = asked.decode(prompt, one.tokens, example.is_chat)
            if not text.strip() or asked.unwritable(one.tokens, example.is_chat):
                continue
            row = encoder(Example(example.id, example.prompt, (Candidate(text),), example.is_chat))
            trained_on = row.responses[0] if row.responses[0] is not None else str(row.reasons[0])
            said = [*one.tokens, asked.tokenizer.eos_token_id]
            made.append(Answer(said, text, trained_on, prompt, row.prompt))
    return made
