"""Text to ids: the boundary, BOS and EOS, with templates and without."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prefopt.data.encode import Encoder
from prefopt.data.fit import Limits
from prefopt.data.formats import recognise
from prefopt.data.pairing import Pairing
from prefopt.data.rows import Row
from prefopt.data.tokenizer import builtin_templates, load_tokenizer, special_prefix, template_text
from prefopt.errors import UserError

PLAIN = {"prompt": "hello world", "chosen": " good answer", "rejected": " bad answer"}
CHAT = {
    "prompt": [{"role": "user", "content": "sky?"}],
    "chosen": [{"role": "assistant", "content": "The sky is blue."}],
    "rejected": [{"role": "assistant", "content": "I cannot help with that."}],
}


def encode(tokenizer, *values, needs=frozenset({"pairs"}), eos="append", limits=None):
    rows = [Row("f.jsonl", number, value) for number, value in enumerate(values, 1)]
    recognised = recognise(rows, "auto", "f.jsonl")
    limits = limits or Limits(4096, None, "drop")
    chunk = Encoder(tokenizer, recognised, needs, Pairing(), eos, limits).encode(rows)
    return chunk.kept.to_pylist(), chunk.left_out


def test_plain_text_is_joined_as_it_stands_and_closed_with_eos(no_bos):
    tokenizer = load_tokenizer(no_bos)
    (row,), left_out = encode(tokenizer, PLAIN)
    assert left_out == []
    assert tokenizer.decode(row["prompt"]) == "hello world"
    assert [tokenizer.decode(r) for r in row["responses"]] == [" good answer</s>", " bad answer</s>"]
    assert row["num_bos"] == 0
    assert row["num_eos"] == 2


def test_a_plain_prompt_gets_the_tokenizers_bos_once_and_never_its_eos(with_bos):
    tokenizer = load_tokenizer(with_bos)
    assert special_prefix(tokenizer) == [0]
    rows, _ = encode(tokenizer, PLAIN, {**PLAIN, "prompt": "<s>hello world"})
    assert rows[0]["prompt"] == rows[1]["prompt"]
    assert tokenizer.decode(rows[0]["prompt"]) == "<s>hello world"
    assert all(row["num_bos"] == 1 for row in rows)
    assert all(response.count(1) == 1 and response[-1] == 1 for row in rows for response in row["responses"])


def test_a_template_that_writes_bos_and_eos_gives_exactly_one_of_each(chat):
    tokenizer = load_tokenizer(chat)
    (row,), _ = encode(tokenizer, CHAT)
    assert tokenizer.decode(row["prompt"]) == "<s><|im_start|>user\nsky?<|im_end|>\n<|im_start|>assistant\n"
    assert [tokenizer.decode(r) for r in row["responses"]] == [
        "The sky is blue.<|im_end|>",  # the newline behind it is the template's, not the answer's
        "I cannot help with that.<|im_end|>",
    ]
    assert row["num_bos"] == 1
    assert row["num_eos"] == 2


def test_an_eos_spelled_inside_an_answer_does_not_cut_it(chat):
    tokenizer = load_tokenizer(chat)
    answer = "one <|im_end|> two"
    (row,), _ = encode(tokenizer, {**CHAT, "chosen": [{"role": "assistant", "content": answer}]})
    assert tokenizer.decode(row["responses"][0]) == answer + "<|im_end|>"
    assert row["num_special"] == 1
    (row,), _ = encode(load_tokenizer(chat, None, "hh"), {**CHAT, "chosen": [{"role": "assistant", "content": answer}]})
    assert tokenizer.decode(row["responses"][0]) == f" {answer}<|im_end|>"


@pytest.mark.parametrize(
    "end", ["", "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", "{{ eos_token }}"]
)
def test_a_template_that_renders_nothing_for_the_assistant_is_blamed_and_not_the_row(chat, end):
    users = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}\n{% endfor %}"
    if "eos" in end:
        end = "{% if not add_generation_prompt %}" + end + "{% endif %}"
    rows, left_out = encode(load_tokenizer(chat, None, users + end), CHAT)
    assert rows == []
    assert (left_out[0]["reason"], left_out[0]["detail"]) == (
        "template leaves out the response",
        "it renders nothing for the role assistant",
    )


def test_an_answer_that_already_ends_in_eos_gets_no_second_one(chat, no_bos):
    (row,), _ = encode(load_tokenizer(chat), {**CHAT, "chosen": [{"role": "assistant", "content": "yes<|im_end|>"}]})
    assert load_tokenizer(chat).decode(row["responses"][0]) == "yes<|im_end|>"
    (row,), _ = encode(load_tokenizer(no_bos), {**PLAIN, "chosen": " yes</s>"})
    assert load_tokenizer(no_bos).decode(row["responses"][0]) == " yes</s>"


def test_eos_keep_adds_nothing(no_bos, chat):
    (row,), _ = encode(load_tokenizer(no_bos), PLAIN, eos="keep")
    assert row["num_eos"] == 0
    (row,), _ = encode(load_tokenizer(chat), CHAT, eos="keep")
    assert row["num_eos"] == 2


def test_a_tokenizer_without_eos_is_refused_unless_eos_is_kept(no_bos):
    tokenizer = load_tokenizer(no_bos)
    tokenizer.eos_token = None
    with pytest.raises(UserError, match=r"f\.jsonl:1: the tokenizer defines no EOS"):
        encode(tokenizer, PLAIN)
    assert len(encode(tokenizer, PLAIN, eos="keep")[0]) == 1


def test_a_boundary_that_would_merge_leaves_the_prompt_the_same_for_all_responses(no_bos):
    tokenizer = load_tokenizer(no_bos)
    whole, prompt = (tokenizer(text)["input_ids"] for text in (" answer", " ans"))
    assert whole[: len(prompt)] != prompt  # the word is one piece, which the boundary cuts
    row = {"prompt": " ans", "chosen": "wer", "rejected": " bad"}
    (encoded,), _ = encode(tokenizer, row)
    assert encoded["prompt"] == prompt
    assert encoded["num_moved"] == 1
    assert [tokenizer.decode(r) for r in encoded["responses"]] == ["wer</s>", " bad</s>"]


def test_a_conversation_without_a_template_is_refused_with_the_keys_to_set(no_bos):
    with pytest.raises(UserError, match=r"f\.jsonl:1: .* no chat template") as error:
        encode(load_tokenizer(no_bos), CHAT)
    assert "data.chat_template" in error.value.hint
    assert all(name in error.value.hint for name in builtin_templates())


def test_the_hh_template_writes_the_dialogue_as_the_file_had_it(with_bos, no_bos):
    row = {
        "chosen": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: sky?\n\nAssistant: blue",
        "rejected": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: sky?\n\nAssistant: red",
    }
    for path, bos in ((with_bos, "<s>"), (no_bos, "")):
        tokenizer = load_tokenizer(path, None, "hh")
        (encoded,), _ = encode(tokenizer, row)
        for response, key in zip(encoded["responses"], ("chosen", "rejected")):
            assert tokenizer.decode(encoded["prompt"] + response) == bos + row[key] + "</s>"
        assert tokenizer.decode(encoded["prompt"]).endswith("Assistant:")
        assert encoded["chosen_text"] == "blue"


def test_a_system_text_stands_in_front_in_hh(no_bos):
    row = {**CHAT, "prompt": [{"role": "system", "content": "Be kind."}, *CHAT["prompt"]]}
    (encoded,), _ = encode(load_tokenizer(no_bos, None, "hh"), row)
    assert encoded["prompt_text"] == "Be kind.\n\nHuman: sky?\n\nAssistant:"


def test_a_template_that_refuses_a_row_leaves_it_out_with_its_message(no_bos):
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn here') }}{% endif %}"
    strict += "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    row = {**CHAT, "prompt": [{"role": "system", "content": "Be kind."}, *CHAT["prompt"]]}
    rows, left_out = encode(load_tokenizer(no_bos, None, strict), row, CHAT)
    assert [r["row"] for r in rows] == [2]
    assert left_out == [
        {"row": 1, "id": "f.jsonl:1", "reason": "chat template refuses the row", "detail": "no system turn here"}
    ]


def test_a_template_whose_prompt_does_not_begin_the_dialogue_leaves_rows_out(no_bos):
    template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    rows, left_out = encode(load_tokenizer(no_bos, None, template), CHAT)
    assert rows == []
    assert left_out[0]["reason"] == "template changes the prompt"


def test_an_empty_prompt_cannot_predict_the_first_token(no_bos, with_bos):
    row = {**PLAIN, "prompt": ""}
    rows, left_out = encode(load_tokenizer(no_bos), row)
    assert (rows, left_out[0]["reason"]) == ([], "empty prompt")
    rows, left_out = encode(load_tokenizer(with_bos), row)  # behind a BOS it can
    assert rows[0]["prompt"] == [0]


def test_responses_that_become_equal_are_left_out(chat, no_bos):
    stripped = {**CHAT, "rejected": [{"role": "assistant", "content": " The sky is blue.\n"}]}
    _, left_out = encode(load_tokenizer(chat), stripped)
    assert (left_out[0]["reason"], left_out[0]["detail"]) == ("chosen equals rejected", "after rendering")
    same_start = {"prompt": "hello", "chosen": " one two three", "rejected": " one two four"}
    tokenizer = load_tokenizer(no_bos)
    room_for_one = Limits(len(tokenizer("hello")["input_ids"]) + 1, None, "truncate_response")
    _, left_out = encode(tokenizer, same_start, limits=room_for_one)
    assert left_out[0]["detail"] == "after the cut to max_length"


def test_a_template_with_two_bos_is_refused(chat):
    tokenizer = load_tokenizer(chat)
    with pytest.raises(UserError, match="begins with two BOS"):
        load_tokenizer(chat, None, "{{ bos_token }}" + tokenizer.chat_template)


def test_a_prompt_that_spells_the_bos_behind_the_templates_own_is_left_out(chat):
    template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    spelled = {**CHAT, "prompt": [{"role": "user", "content": "<s>sky?"}]}
    rows, left_out = encode(load_tokenizer(chat, None, template), spelled, CHAT)
    assert [row["num_bos"] for row in rows] == [1]
    assert left_out[0]["reason"] == "two BOS"


def test_a_template_comes_by_name_by_file_or_as_text(no_bos, with_bos, tmp_path):
    text = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    (tmp_path / "mine.jinja").write_text(text + "\n")
    assert load_tokenizer(no_bos, None, text).chat_template == text
    assert load_tokenizer(no_bos, None, str(tmp_path / "mine.jinja")).chat_template == text
    assert load_tokenizer(no_bos).chat_template is None
    chatml = template_text(load_tokenizer(with_bos), "", "chatml")
    assert chatml is not None
    assert chatml.startswith("{{- bos_token -}}")
    with pytest.raises(UserError, match="no builtin template and no file") as error:
        load_tokenizer(no_bos, None, "chatlm")
    assert "chatml" in error.value.hint
    with pytest.raises(UserError, match="does not parse"):
        load_tokenizer(no_bos, None, "{% for m in messages %}{{ m }}")


def test_a_folder_without_a_tokenizer_is_misuse_and_a_missing_hub_model_a_failure(tmp_path):
    with pytest.raises(UserError, match="no tokenizer could be loaded") as error:
        load_tokenizer(str(tmp_path))
    assert error.value.exit_code == 2
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "mod')
    with pytest.raises(UserError, match="no tokenizer could be loaded"):
        load_tokenizer(str(tmp_path))
    with pytest.raises(UserError, match="no such model folder"):
        load_tokenizer(str(tmp_path / "absent"))
    with pytest.raises(UserError, match="neither a folder here nor a tokenizer") as error:
        load_tokenizer("some-owner/some-model")
    assert error.value.exit_code == 1


# Text whose every piece survives: no lone surrogates, no special tokens.
ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(prompt=ANY_TEXT, chosen=ANY_TEXT, rejected=ANY_TEXT)
@example(prompt="0", chosen="d", rejected="im_end")  # spelt by the template's own EOS
def test_prompt_and_response_ids_spell_the_rendered_text(no_bos, chat, prompt, chosen, rejected):
    plain = load_once(no_bos)
    rows, _ = encode(plain, {"prompt": prompt, "chosen": chosen, "rejected": rejected})
    for row in rows:
        ids = row["prompt"] + row["responses"][row["best"]]
        assert plain.decode(ids) == prompt + chosen + "</s>"
    templated = load_once(chat)
    turns = [{"role": "user", "content": prompt}]
    answers = [[{"role": "assistant", "content": text}] for text in (chosen, rejected)]
    rows, _ = encode(templated, {"prompt": turns, "chosen": answers[0], "rejected": answers[1]})
    for row in rows:
        whole = templated.apply_chat_template([*turns, *answers[0]], tokenize=False)
        assert templated.decode(row["prompt"] + row["responses"][0]) == whole.removesuffix("\n")


_loaded: dict = {}


def load_once(path):
    if path not in _loaded:
        _loaded[path] = load_tokenizer(path)
    return _loaded[path]


def test_a_rows_ids_do_not_depend_on_its_neighbours(chat):
    tokenizer = load_tokenizer(chat)
    values = [{**CHAT, "prompt": [{"role": "user", "content": "x" * n}]} for n in range(1, 9)]
    together, _ = encode(tokenizer, *values)
    alone = [encode(tokenizer, value)[0][0] for value in values]
    assert [row["responses"] + [row["prompt"]] for row in together] == [r["responses"] + [r["prompt"]] for r in alone]
