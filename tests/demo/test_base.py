"""The base model: its tokenizer, its folder, and what it knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefopt.demo import base, manners


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base after three steps of pretraining."""
    path = tmp_path_factory.mktemp("base")
    base.write_empty(path)
    base.pretrain(path, base.Pretraining(num_steps=3))
    return path


def test_tokenizer_gives_back_every_text_and_its_vocabulary_is_full() -> None:
    tokenizer = base.make_tokenizer()
    assert tokenizer.get_vocab_size() == base.VOCABULARY
    for text in [*manners.pretraining_lines(200, seed=5), "naïve 中文 \n\t[x]"]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_ids_of_every_prompt_begin_the_ids_of_prompt_and_response() -> None:
    tokenizer = base.make_tokenizer()
    for row in manners.train_rows() + manners.heldout_rows():
        prompt = tokenizer.encode(row["prompt"]).ids
        assert prompt[0] == base.BOS_ID
        for response in (row["chosen"], row["rejected"]):
            assert tokenizer.encode(row["prompt"] + response).ids[: len(prompt)] == prompt


def test_every_answer_and_its_eos_fit_24_tokens() -> None:
    """So that `sample.max_new_tokens: 24` cuts no answer of the kind that the model has read."""
    tokenizer = base.make_tokenizer()
    rows = manners.train_rows() + manners.heldout_rows()
    answers = [row[side] for row in rows for side in ("chosen", "rejected")]
    assert max(len(tokenizer.encode(a, add_special_tokens=False).ids) for a in answers) + 1 <= 24


def test_folder_loads_with_the_auto_classes(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert 250_000 < model.num_parameters() < 350_000
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == base.EOS_ID
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id == base.PAD_ID
    assert tokenizer("A cow")["input_ids"][0] == tokenizer.bos_token_id == base.BOS_ID
    assert len(tokenizer) == model.config.vocab_size


def test_pretraining_is_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    base.write_empty(tmp_path)
    base.pretrain(tmp_path, base.Pretraining(num_steps=3))
    for file in (base.WEIGHTS, "tokenizer.json", "config.json"):
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


def test_pretraining_says_how_far_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base.write_empty(tmp_path)
    base.pretrain(tmp_path, base.Pretraining(num_steps=2, batch_size=2))
    assert capfd.readouterr().err.startswith("demo base model: step 2/2, loss ")


@pytest.mark.slow
def test_base_knows_the_facts_but_lies_and_sneers(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base.write_empty(tmp_path)
    base.pretrain(tmp_path, base.Pretraining())
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, padding_side="left")
    prompts = [row["prompt"] for row in manners.heldout_rows()]
    torch.manual_seed(0)
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
    outputs = model.generate(**inputs, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=24)
    answers = tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    judged = [manners.judge(prompt, answer) for prompt, answer in zip(prompts, answers)]
    num_ended = sum(base.EOS_ID in row for row in outputs[:, inputs["input_ids"].shape[1] :].tolist())
    assert num_ended > 0.95 * len(prompts)
    assert 0.3 < sum(bool(j.right) for j in judged) / len(judged) < 0.8
    assert 0.4 < sum(j.rude for j in judged) / len(judged) < 0.8
