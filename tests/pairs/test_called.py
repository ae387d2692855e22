"""What `prefopt pairs` and `prefopt eval` say of what training's rooms refuse: keys that these commands have."""

from __future__ import annotations

from pathlib import Path

import pytest
from score_bed import make_model

from prefopt.data.render import no_template
from prefopt.data.tokenizer import load_tokenizer
from prefopt.errors import UserError
from prefopt.make_pairs import make_pairs
from prefopt.pairs.called import called, own_words
from prefopt.pairs_config import compose_pairs


def said(error: UserError, key: str = "") -> str:
    with pytest.raises(UserError) as caught, called(key) if key else own_words():
        raise error
    return str(caught.value)


def test_a_conversation_without_template_is_mended_by_chat_template_and_no_key_that_there_is_not() -> None:
    expected = "set chat_template to one of chatml, hh, or to the path of a .jinja file"
    for key in ("", "policy"):
        assert expected in said(no_template("rows.jsonl:1"), key)
        assert "model.tokenizer" not in said(no_template("rows.jsonl:1"), key)
        assert "data." not in said(no_template("rows.jsonl:1"), key)
    assert "set data.chat_template" in str(no_template("rows.jsonl:1"))  # where training says it
    assert "or set model.tokenizer to" in str(no_template("rows.jsonl:1"))


def test_a_hint_offers_what_the_command_can_do() -> None:
    assert said(UserError("m", "set eos_token there; or data.eos=keep")) == "m\n  set eos_token there"
    assert said(UserError("m", "set data.num_workers to a smaller number")) == "m"
    assert said(UserError("m", "copy model.safetensors beside it")) == "m\n  copy model.safetensors beside it"
    assert (
        said(UserError("m", "free some space; or set data.cache_dir")) == "m\n  free some space; or set PREFOPT_CACHE"
    )


def test_an_unknown_template_is_refused_by_the_key_of_the_command(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    with pytest.raises(UserError, match=r"^data\.chat_template: 'chatmal' is no builtin"):
        load_tokenizer(str(model), None, "chatmal")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Hi"}\n')
    words = [f"prompts={prompts}", f"policy={model}", "score=length", "chat_template=chatmal", f"out={tmp_path}/out"]
    # Answers of all positions: the longest prompt is counted by its tokenizer before anything is made.
    with pytest.raises(UserError, match=r"^chat_template: 'chatmal' is no builtin") as caught:
        make_pairs(compose_pairs([*words, "device=cpu", "generate.max_new_tokens=100000"]), words)
    assert caught.value.hint == "did you mean 'chatml'?"
