"""`prefopt data` on a terminal: counts, rows with the trained tokens marked, every row left out."""

from __future__ import annotations

import io

from rich.console import Console

from prefopt.data.dataset import prepare
from prefopt.data.show import show
from prefopt.data.tokenizer import load_tokenizer
from prefopt.settings import DataSettings, SourceSettings

ROWS = [
    {"prompt": "hello [bold]world", "chosen": " good answer", "rejected": " bad answer", "annotator": 3},
    *({"prompt": f"q{n}", "chosen": "", "rejected": " bad"} for n in range(2, 40)),
]


def shown(path: str, tokenizer: str, cache, needs=frozenset({"pairs"}), **console) -> str:
    settings = DataSettings(train=[SourceSettings(path)], max_drop_fraction=1.0)
    prepared = prepare(settings, tokenizer, needs, cache)
    out = io.StringIO()
    show(prepared, load_tokenizer(tokenizer), Console(file=out, width=100, **console), rows=5)
    return out.getvalue()


def test_without_colour_the_trained_tokens_are_in_brackets(jsonl, no_bos, tmp_path):
    text = shown(jsonl(ROWS), no_bos, tmp_path)
    assert "\nhello [bold]world\n" in text
    assert "chosen: [[ good answer</s>]]" in text
    assert "rejected: [[ bad answer</s>]]" in text
    ids = load_tokenizer(no_bos)("hello [bold]world")["input_ids"]
    assert f"prompt ids ({len(ids)}): {ids}" in text
    assert "columns not used: annotator" in text


def test_with_colour_the_trained_tokens_have_a_style(jsonl, no_bos, tmp_path):
    text = shown(jsonl(ROWS), no_bos, tmp_path, force_terminal=True, color_system="standard")
    assert "\x1b[32m good answer</s>\x1b[0m" in text
    assert "[[" not in text


def test_every_row_left_out_is_named(jsonl, no_bos, tmp_path):
    text = shown(jsonl(ROWS), no_bos, tmp_path)
    assert "38 rows left out" in text
    for number in range(2, 40):
        assert f"rows.jsonl:{number}: empty response (response 1 of 2)" in text


def test_a_conversion_is_named(jsonl, no_bos, tmp_path):
    text = shown(jsonl(ROWS[:1]), no_bos, tmp_path, needs=frozenset())
    assert "not used by this method" in " ".join(text.split())
    assert "response: [[ good answer</s>]]" in text
    assert "no row is left out" in text
