"""What a policy said is what training reads: ids to text to ids, for plain texts and conversations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pairs_bed import make_base
from text_bed import answers

from prefopt.pairs.answers import Answers, Said
from prefopt.pairs.encode import CandidateEncoder
from prefopt.pairs.places import real
from prefopt.pairs.policies import Answering, open_policy
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import LeftOut, Place
from prefopt.records import Candidate, Example, Message

STORIES = ("Once upon a time, there was a", "Lily went to the park. ", "One day,\n", "Tom had a big red ball.",
           "The dog", ' Sara said, "', "She was sad because her", "Ben and Mia")  # fmt: skip
TEXTS = ("So.", " So it was.", "\nSo.\n\nAnd so on.", "A dog  ran", '"Yes," she said.', "é ü", "1 + 1 = 2", "  two")


def asked_in(example: str, is_chat: bool, *texts: str) -> Example:
    return Example("p:1", (Message("user", example),), tuple(Candidate(text) for text in texts), is_chat)


def policy_of(shared: Path, name: str, template: str | None, notes: Path) -> Answering:
    model = make_base() if name == "base" else str(shared / "models" / name)
    settings = PairsSettings(policy=model, chat_template=template)
    return open_policy(model, Place(settings, "cpu", str(notes)), (), 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", "stories260K"])
@pytest.mark.parametrize("prompt", ["Once upon a time", "Why? ", "One day,\n"])
def test_a_plain_answers_ids_decode_to_its_text(name: str, prompt: str, shared: Path, tmp_path: Path) -> None:
    """Byte-level and sentencepiece vocabularies: the white space in front of an answer is its own. Behind a prompt that
    ends with a space, sentencepiece has one token for " So." and for "So.": the text may differ, its ids do not.
    """
    asked = policy_of(shared, name, None, tmp_path)
    example = asked_in(prompt, False, *TEXTS)
    encoder = CandidateEncoder(asked.tokenizer, None, name)
    row = encoder(example)
    assert asked.encode([example]) == ([row.prompt], [0], {})
    for text, ids in zip(TEXTS, row.responses, strict=True):
        assert ids is not None
        said = asked.decode(row.prompt, ids[:-1], False)
        assert said == text or (prompt.endswith(" ") and said.strip() == text.strip())
        assert encoder(asked_in(prompt, False, said)).responses == (ids,)
        assert asked.unwritable(ids[:-1], False) == []


@pytest.mark.slow
@pytest.mark.parametrize("template", ["chatml", "hh"])
@pytest.mark.parametrize("name", ["base", "stories260K"])
def test_an_answer_in_a_conversation_decodes_to_its_words_without_what_the_template_adds(
    name: str, template: str, shared: Path, tmp_path: Path
) -> None:
    """chatml closes a turn with <|im_end|>, which these vocabularies spell out: it is no part of what was said."""
    asked = policy_of(shared, name, template, tmp_path)
    example = asked_in("Why is it so?", True, *TEXTS)
    row = CandidateEncoder(asked.tokenizer, None, name)(example)
    assert asked.encode([example]) == ([row.prompt], [0], {})
    for text, ids in zip(TEXTS, row.responses, strict=True):
        assert ids is not None
        assert asked.decode(row.prompt, ids[:-1], True) == text.strip()


@pytest.mark.slow
def test_the_demos_answers_are_trained_on_as_the_tokens_that_were_said(tmp_path: Path) -> None:
    """127 of 128; the other one has bytes that are no text."""
    base = make_base()
    rows = Path(real("demo://manners/train.jsonl")).read_text(encoding="utf-8").splitlines()
    prompts = [asked_in(words, False) for words in dict.fromkeys(json.loads(row)["prompt"] for row in rows)][:32]
    found = answers(base, prompts, tmp_path, n=4, tokens=40)
    assert len(found) >= 120
    assert sum(one.comes_back for one in found) >= 0.97 * len(found)
    assert all(one.prompt == one.trained_prompt for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stories260K", "babyllama105"])
def test_a_storytellers_words_are_trained_on_as_the_tokens_that_were_said(
    name: str, shared: Path, tmp_path: Path
) -> None:
    """31 of 32 and 30 of 30; the other one was said in tokens into which nobody would cut its words."""
    prompts = [asked_in(words, False) for words in STORIES if "\n" not in words or name == "stories260K"]
    found = answers(shared / "models" / name, prompts, tmp_path, n=4, tokens=60, stop=("<s>",))
    assert len(found) >= 24
    assert sum(one.comes_back for one in found) >= 0.9 * len(found)
    assert all(one.prompt == one.trained_prompt for one in found)


@pytest.mark.slow
def test_an_answer_with_special_tokens_inside_is_left_out_by_name(tmp_path: Path) -> None:
    """Its text would be two texts in one, and training would read other tokens than were said."""
    base = make_base()
    asked = open_policy(base, Place(PairsSettings(policy=base), "cpu", str(tmp_path)), (), 8)
    so, bos = asked.tokenizer(" So.", add_special_tokens=False)["input_ids"], asked.tokenizer.bos_token_id
    said = [Said(so, True), Said([*so, bos, *so], True), Said(so, False), Said([], True)]
    (made,) = Answers([asked], lambda *_: [said], "drop", "drop")([asked_in("Why?", False)])
    assert [candidate.text for candidate in made.examples[0].candidates] == [" So."]
    ends_there = "<bos>; where that ends an answer: generate.stop"
    assert made.left_out == (
        LeftOut("p:1", "special tokens within the answer", ends_there, " So. So."),
        LeftOut("p:1", "answer not finished", f"cut after {len(so)} tokens", " So."),
        LeftOut("p:1", "empty answer", "0 tokens", ""),
    )
