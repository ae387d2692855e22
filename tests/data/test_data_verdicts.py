"""Responses that end in a verdict: what is read, what is predicted, and where one ends and the other begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefopt.batch import Encoded
from prefopt.data.dataset import prepare
from prefopt.data.encode import Encoder
from prefopt.data.fit import Limits
from prefopt.data.formats import recognise
from prefopt.data.pairing import Pairing
from prefopt.data.rows import Row
from prefopt.data.tokenizer import load_tokenizer
from prefopt.data.verdicts import COMPARISON
from prefopt.errors import UserError
from prefopt.pack import pack
from prefopt.settings import DataSettings, SourceSettings

POINTWISE, PAIRWISE = frozenset({"labels", "verdicts"}), frozenset({"pairs", "comparisons"})
PLAIN = {"prompt": "hello world", "chosen": " good answer", "rejected": " bad answer"}
CHAT = {
    "prompt": [{"role": "user", "content": "sky?"}],
    "chosen": [{"role": "assistant", "content": "The sky is blue."}],
    "rejected": [{"role": "assistant", "content": "I cannot help with that."}],
}
RANKED = {"prompt": "hello", "responses": [" one", " two", " three"], "scores": [1, 3, 2]}


def encode(tokenizer, *values, needs, pairing=Pairing(), eos="append", limits=None):  # noqa: B008
    rows = [Row("f.jsonl", number, value) for number, value in enumerate(values, 1)]
    limits = limits or Limits(4096, None, "drop")
    encoder = Encoder(tokenizer, recognise(rows, "auto", "f.jsonl"), needs, pairing, eos, limits)
    chunk = encoder.encode(rows)
    return chunk.kept.to_pylist(), chunk.left_out


def read_and_predicted(tokenizer, row) -> list[tuple[str, str]]:
    """What of each response is read, and what is predicted."""
    return [
        (tokenizer.decode(ids[:given]), tokenizer.decode(ids[given:]))
        for ids, given in zip(row["responses"], row["given"], strict=True)
    ]


def test_each_response_is_followed_by_good_or_bad(no_bos, with_bos, chat):
    for path, end in ((no_bos, "</s>"), (with_bos, "</s>"), (chat, "<|im_end|>")):
        tokenizer = load_tokenizer(path)
        (row,), _ = encode(tokenizer, PLAIN, needs=POINTWISE)
        assert read_and_predicted(tokenizer, row) == [(" good answer" + end, "Good"), (" bad answer" + end, "Bad")]
        assert row["labels"] == [True, False]
        assert row["num_eos"] == 2


def test_a_conversations_verdict_stands_behind_its_closed_turn(chat):
    tokenizer = load_tokenizer(chat)
    (row,), _ = encode(tokenizer, CHAT, needs=POINTWISE)
    assert read_and_predicted(tokenizer, row) == [
        ("The sky is blue.<|im_end|>", "Good"),
        ("I cannot help with that.<|im_end|>", "Bad"),
    ]


def test_the_ids_before_the_verdict_are_those_without_it(no_bos, chat):
    for path, value in ((no_bos, PLAIN), (chat, PLAIN), (chat, CHAT)):
        tokenizer = load_tokenizer(path)
        (plain,), _ = encode(tokenizer, value, needs=frozenset({"labels"}))
        (row,), _ = encode(tokenizer, value, needs=POINTWISE)
        assert row["prompt"] == plain["prompt"]
        assert [ids[:given] for ids, given in zip(row["responses"], row["given"])] == plain["responses"]
        verdicts = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("Good", "Bad")]
        assert [ids[given:] for ids, given in zip(row["responses"], row["given"])] == verdicts
        assert plain["given"] is None


def test_a_verdict_follows_the_label_of_the_file(no_bos):
    tokenizer = load_tokenizer(no_bos)
    values = [{"prompt": "a", "completion": " b", "label": label} for label in (False, True)]
    rows, _ = encode(tokenizer, *values, needs=POINTWISE)
    assert [read_and_predicted(tokenizer, row) for row in rows] == [[(" b</s>", "Bad")], [(" b</s>", "Good")]]


def test_a_pair_is_shown_in_both_orders(no_bos, with_bos):
    for path in (no_bos, with_bos):
        tokenizer = load_tokenizer(path)
        (row,), _ = encode(tokenizer, PLAIN, needs=PAIRWISE)
        assert read_and_predicted(tokenizer, row) == [
            ("[A]\n good answer\n\n[B]\n bad answer\n\n</s>", "A"),
            ("[A]\n bad answer\n\n[B]\n good answer\n\n</s>", "B"),
        ]
        assert (row["pairs"], row["best"], row["labels"], row["scores"]) == ([], 0, None, None)
        assert row["chosen_text"] == " good answer"


def test_a_comparison_is_rendered_as_an_answer_is(chat):
    tokenizer = load_tokenizer(chat)
    (row,), _ = encode(tokenizer, CHAT, needs=PAIRWISE)
    (first, right), _ = read_and_predicted(tokenizer, row)
    shown = COMPARISON.format(first="The sky is blue.", second="I cannot help with that.")
    assert (first, right) == (shown.strip() + "<|im_end|>", "A")  # the template strips an answer


def test_every_pair_of_a_ranking_is_compared(no_bos):
    tokenizer = load_tokenizer(no_bos)
    (row,), _ = encode(tokenizer, RANKED, needs=PAIRWISE, pairing=Pairing("adjacent"))
    shown = [(read.split("\n")[1] + read.split("\n")[4], said) for read, said in read_and_predicted(tokenizer, row)]
    assert shown == [(" two three", "A"), (" three two", "B"), (" three one", "A"), (" one three", "B")]
    assert (row["num_unused"], row["num_compared"]) == (0, 2)


def test_without_eos_the_verdict_follows_the_text(no_bos):
    tokenizer = load_tokenizer(no_bos)
    (row,), _ = encode(tokenizer, PLAIN, needs=POINTWISE, eos="keep")
    assert read_and_predicted(tokenizer, row) == [(" good answer", "Good"), (" bad answer", "Bad")]


@pytest.mark.parametrize("needs", [POINTWISE, PAIRWISE])
@pytest.mark.parametrize(("too_long", "reason"), [("drop", "too long"), ("truncate_response", "verdict does not fit")])
def test_a_verdict_is_never_cut_off(no_bos, needs, too_long, reason):
    tokenizer = load_tokenizer(no_bos)
    (row,), _ = encode(tokenizer, PLAIN, needs=needs)
    longest = len(row["prompt"]) + max(map(len, row["responses"]))
    rows, _ = encode(tokenizer, PLAIN, needs=needs, limits=Limits(longest, None, too_long))
    assert rows == [row]
    rows, left_out = encode(tokenizer, PLAIN, needs=needs, limits=Limits(longest - 1, None, too_long))
    assert (rows, left_out[0]["reason"]) == ([], reason)
    assert f"max_length {longest - 1}" in left_out[0]["detail"]


def test_a_prompt_may_be_cut_in_front_of_a_verdict(no_bos):
    tokenizer = load_tokenizer(no_bos)
    (row,), _ = encode(tokenizer, PLAIN, needs=POINTWISE)
    limits = Limits(len(row["prompt"]) + max(map(len, row["responses"])) - 1, None, "truncate_prompt")
    (cut,), _ = encode(tokenizer, PLAIN, needs=POINTWISE, limits=limits)
    assert (cut["responses"], cut["given"]) == (row["responses"], row["given"])
    assert cut["prompt"] == row["prompt"][1:]


def test_rows_of_verdicts_keep_no_pairs(chat):
    (row,), _ = encode(load_tokenizer(chat), CHAT, needs=POINTWISE)
    assert row["labels"] == [True, False]
    assert row["pairs"] == []


def test_answers_that_render_alike_are_no_pair_whatever_follows_them(chat):
    alike = {**CHAT, "rejected": [{"role": "assistant", "content": " The sky is blue.\n"}]}
    rows, left_out = encode(load_tokenizer(chat), alike, needs=POINTWISE)
    assert (rows, left_out[0]["detail"]) == ([], "after rendering")


def word_level(folder: Path, *words: str) -> str:
    """A tokenizer that knows these words only."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate(["<unk>", "</s>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    fast.save_pretrained(folder)
    return str(folder)


def test_a_tokenizer_that_cannot_write_a_verdict_is_refused(tmp_path):
    tokenizer = load_tokenizer(word_level(tmp_path / "a", "hello", "world", "good", "bad", "answer", "Good", "A", "B"))
    with pytest.raises(UserError, match="cannot write the verdict 'Bad': it gives an unknown token"):
        encode(tokenizer, PLAIN, needs=POINTWISE)
    (row,), _ = encode(tokenizer, PLAIN, needs=PAIRWISE)  # these two it knows
    assert [ids[-1] for ids in row["responses"]] == [tokenizer.convert_tokens_to_ids(word) for word in "AB"]


def test_a_tokenizer_that_drops_a_verdict_is_refused(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    # Without an unknown token, what a BPE cannot write is dropped.
    letters = {letter: place for place, letter in enumerate(["</s>", *"helowrdgansb ", "G"])}
    fast = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(letters, [])), eos_token="</s>")
    fast.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="cannot write the verdict 'A': it gives no id"):
        encode(load_tokenizer(str(tmp_path)), PLAIN, needs=PAIRWISE)


@pytest.mark.parametrize(
    "needs",
    [{"verdicts"}, {"comparisons"}, {"labels", "targets"}, {"pairs", "comparisons", "targets"}],
)
def test_needs_that_cannot_stand_together_are_a_mistake_of_the_method(no_bos, needs):
    with pytest.raises(ValueError, match="a method"):
        encode(load_tokenizer(no_bos), PLAIN, needs=frozenset(needs))


def prepared_for(jsonl, tokenizer: str, cache: Path, needs: frozenset[str], *rows: dict):
    return prepare(DataSettings(train=[SourceSettings(jsonl(list(rows)))]), tokenizer, needs, cache)


def test_a_batch_of_verdicts_predicts_nothing_else(jsonl, no_bos, tmp_path):
    for needs in (POINTWISE, PAIRWISE):
        prepared = prepared_for(jsonl, no_bos, tmp_path, needs, PLAIN, {**PLAIN, "prompt": "one two"})
        examples = list(prepared.train)
        assert all(isinstance(e, Encoded) and e.given is not None for e in examples)
        batch = pack(examples)
        words = ("Good", "Bad") if needs == POINTWISE else ("A", "B")
        ids = [load_tokenizer(no_bos)(word, add_special_tokens=False)["input_ids"] for word in words]
        assert batch.target.tolist() == [token for _ in examples for word in ids for token in word]
        assert batch.lengths.tolist() == [len(word) for _ in examples for word in ids]


def test_the_account_of_judged_rows(jsonl, no_bos, tmp_path):
    report = prepared_for(jsonl, no_bos, tmp_path, POINTWISE, PLAIN).report
    assert report["total"]["eos_kept"] == "2 of 2"
    assert report["total"]["labels"] == {"desirable": 1, "undesirable": 1}
    assert 'each response is followed by "Good" or "Bad" by its label' in " ".join(report["sources"][0]["conversions"])
    prepared = prepared_for(jsonl, no_bos, tmp_path, PAIRWISE, PLAIN)
    assert (
        '1 pairs are shown in both orders, followed by "A" or "B"' in prepared.report["sources"][0]["conversions"][-1]
    )
    assert prepared.train.num_pairs.tolist() == [0]


WORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20).filter(str.strip)
_loaded: dict = {}


@settings(max_examples=40)
@given(prompt=WORDS, chosen=WORDS, rejected=WORDS)
def test_every_text_ends_in_its_verdict(no_bos, prompt, chosen, rejected):
    tokenizer = _loaded.setdefault(no_bos, load_tokenizer(no_bos))
    value = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    rows, _ = encode(tokenizer, value, needs=POINTWISE)
    for row in rows:
        said = [(chosen + "</s>", "Good"), (rejected + "</s>", "Bad")]
        assert read_and_predicted(tokenizer, row) == said
    rows, _ = encode(tokenizer, value, needs=PAIRWISE)
    for row in rows:
        shown = [COMPARISON.format(first=a, second=b) for a, b in ((chosen, rejected), (rejected, chosen))]
        assert read_and_predicted(tokenizer, row) == [(shown[0] + "</s>", "A"), (shown[1] + "</s>", "B")]
