"""Ids behind a certain cut do not depend on what stands before it; compiled templates render what transformers does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prefopt.data.boundaries import boundaries_of
from prefopt.data.template import compiled_template

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PIECES = [
    "<|im_start|>",
    "<|im_end|>",
    "<|im_start",
    "|>",
    "<s>",
    "<",
    " ",
    "\n",
    "▁",
    "ab",
    "aba",
    "b",
    "é",
    "12",
    "A",
]


def tokenizer(kind: str, template: str = TEMPLATE, more: tuple[AddedToken | str, ...] = ()) -> PreTrainedTokenizerFast:
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "▁", "é", "a", "b", "<", "|"]
    vocabulary = {token: n for n, token in enumerate(dict.fromkeys(["<unk>", *letters, "ab", "aba", "▁a", "Ġa"]))}
    merges = [("a", "b"), ("ab", "a"), ("▁", "a"), ("Ġ", "a")]
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    if kind == "byte_level":
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif kind == "metaspace_first":
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    elif kind == "prepend":
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        inner.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Lowercase()])
    ends = ("<|im_start|>", AddedToken("<|im_end|>", lstrip=True, rstrip=True, normalized=False), *more)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", additional_special_tokens=list(ends), chat_template=template
    )


KINDS = ("byte_level", "metaspace_first", "prepend", "strip")
TOKENIZERS = {kind: tokenizer(kind) for kind in KINDS}
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@given(TEXTS, TEXTS)
def test_what_follows_a_cut_encodes_as_it_does_alone(kind: str, prompt: str, response: str) -> None:
    made = TOKENIZERS[kind]
    cut = boundaries_of(made).last(prompt)
    if cut is None:
        return
    place, number = cut

    def ids(text: str) -> list[int]:
        return made.backend_tokenizer.encode(text, add_special_tokens=False).ids

    before = ids(prompt)
    last = len(before) - 1 - before[::-1].index(number)
    assert ids(prompt + response) == before[:last] + ids(prompt[place:] + response)
    assert ids(prompt[place:]) == before[last:]


def test_all_tokens_of_the_template_are_cuts() -> None:
    made = TOKENIZERS["byte_level"]
    assert {token for token, _ in boundaries_of(made).tokens} == {"<s>", "<|im_start|>", "<|im_end|>"}
    assert boundaries_of(made).last("no token <|im_start") is None


@pytest.mark.parametrize("other", ["<|im_start|>assistant", "xx<|im", "|>|>", "start|><"])
def test_a_token_that_another_may_cover_is_no_cut(other: str) -> None:
    made = tokenizer("byte_level", more=(other,))
    assert "<|im_start|>" not in {token for token, _ in boundaries_of(made).tokens}


def test_a_normalised_token_is_no_cut() -> None:
    made = tokenizer("strip", template="Q: {{ messages }} [END]")
    made.add_tokens([AddedToken("[END]", normalized=True)])
    assert "[END]" not in {token for token, _ in boundaries_of(made).tokens}


@given(st.lists(st.text(max_size=12), min_size=1, max_size=4), st.booleans())
def test_a_compiled_template_renders_what_transformers_does(contents: list[str], add: bool) -> None:
    made = TOKENIZERS["byte_level"]
    messages = [{"role": ("user", "assistant")[n % 2], "content": c} for n, c in enumerate(contents)]
    template = compiled_template(made)
    assert template is not None
    assert template(messages, add) == made.apply_chat_template(messages, tokenize=False, add_generation_prompt=add)


def test_a_template_that_refuses_a_short_dialogue_is_left_to_transformers() -> None:
    refuses = "{% if messages | length < 3 %}{{ raise_exception('too short') }}{% endif %}{{ messages }}"
    assert compiled_template(tokenizer("byte_level", refuses)) is None
