"""`prefopt data` on a terminal: counts, rows with the trained tokens marked, every row left out."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace

import pytest
import yaml
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prefopt.config import compose
from prefopt.data.dataset import prepare
from prefopt.data.show import show
from prefopt.data.tokenizer import load_tokenizer
from prefopt.data_summary import data_lines
from prefopt.dry_run import template_lines
from prefopt.errors import UserError
from prefopt.settings import DataSettings, SourceSettings
from prefopt.show_data import recorded, show_data

ROWS = [
    {"prompt": "hello [bold]world", "chosen": " good answer", "rejected": " bad answer", "annotator": 3},
    *({"prompt": f"q{n}", "chosen": "", "rejected": " bad"} for n in range(2, 40)),
]


def shown(path: str, tokenizer: str, cache, needs=frozenset({"pairs"}), data=None, **console) -> str:
    settings = DataSettings(train=[SourceSettings(path)], max_drop_fraction=1.0, **(data or {}))
    prepared = prepare(settings, tokenizer, needs, cache)
    out = io.StringIO()
    show(prepared, load_tokenizer(tokenizer), Console(file=out, width=100, **console), rows=5)
    return out.getvalue()


def counts_in(text: str) -> dict[str, str]:
    """The table's first two columns."""
    cells = [line.split("\u2502") for line in text.splitlines() if "\u2502" in line]
    return {row[1].strip(): row[2].strip() for row in cells}


def test_without_colour_the_trained_tokens_are_in_brackets(jsonl, no_bos, tmp_path):
    text = shown(jsonl(ROWS), no_bos, tmp_path)
    assert "\nhello [bold]world\n" in text
    assert "chosen: [[ good answer</s>]]" in text
    assert "rejected: [[ bad answer</s>]]" in text
    ids = load_tokenizer(no_bos)("hello [bold]world")["input_ids"]
    assert f"prompt ids ({len(ids)}): {ids}" in text
    assert "columns not used: annotator" in text


def test_a_response_begins_with_the_space_that_its_first_token_has(jsonl, tmp_path):
    """A tokenizer of SentencePiece's kind, whose decoder takes the first space off whatever it is given."""
    words = {"<unk>": 0, "</s>": 1, "\u2581Once": 2, "\u2581Hi": 3, "Once": 4}
    bare = Tokenizer(models.WordLevel(words, "<unk>"))
    bare.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bare.decoder = decoders.Metaspace(prepend_scheme="first")
    PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="</s>").save_pretrained(tmp_path / "t")
    path = jsonl([{"prompt": "Hi", "chosen": " Once", "rejected": " Hi Once"}])
    text = shown(path, str(tmp_path / "t"), tmp_path)
    assert load_tokenizer(str(tmp_path / "t")).decode([2]) == "Once"
    assert "\nHi\n" in text
    assert "chosen: [[ Once</s>]]" in text
    assert "rejected: [[ Hi Once</s>]]" in text


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


def test_only_the_verdict_is_marked_as_trained(jsonl, no_bos, tmp_path):
    rows = [{"prompt": "hello", "chosen": " good", "rejected": " bad"}]
    text = shown(jsonl(rows), no_bos, tmp_path, needs=frozenset({"labels", "verdicts"}))
    assert "desirable: good</s>[[Good]]" in " ".join(text.split())
    assert "undesirable: bad</s>[[Bad]]" in " ".join(text.split())
    verdict = load_tokenizer(no_bos)("Good", add_special_tokens=False)["input_ids"]
    assert f"the last {len(verdict)} trained" in text
    text = shown(jsonl(rows), no_bos, tmp_path, needs=frozenset({"pairs", "comparisons"}))
    assert "comparison 1: [A] good [B] bad </s>[[A]]" in " ".join(text.split())
    coloured = shown(
        jsonl(rows), no_bos, tmp_path, needs=frozenset({"labels", "verdicts"}), force_terminal=True,
        color_system="standard",
    )  # fmt: skip
    assert " good</s>\x1b[32mGood\x1b[0m" in coloured


def test_the_response_to_imitate_is_named(jsonl, no_bos, tmp_path):
    row = {"prompt": "hello", "chosen": " good", "rejected": " bad"}
    rows = [{**row, "y_ref": " fine"}, {**row, "y_ref": " good"}]
    text = shown(jsonl(rows), no_bos, tmp_path, needs=frozenset({"pairs", "targets"}))
    assert "unpaired, to imitate: [[ fine</s>]]" in text
    assert "chosen, to imitate: [[ good</s>]]" in text


def test_labels_and_close_pairs_are_counted(jsonl, no_bos, tmp_path):
    rows = [
        {"prompt": "a", "responses": [" b", " c", " d"], "scores": [0, 2, 1.9]},
        {"prompt": "b", "responses": [" b", " c"], "scores": [0, 0.5]},
    ]
    path, data = jsonl(rows), {"min_score_gap": 1.0, "pairs": "all"}
    text = shown(path, no_bos, tmp_path, data=data)
    lines = counts_in(text)
    assert lines["pairs of too close scores"] == "2"
    assert lines["left out: score gap too small"] == "1"
    text = shown(path, no_bos, tmp_path, needs=frozenset({"labels"}), data={"min_score_gap": 1.0})
    lines = counts_in(text)
    assert lines["responses desirable, undesirable"] == "1, 1"


def test_the_lines_before_a_run_name_labels_and_conversions(jsonl, no_bos, tmp_path):
    path = jsonl([{"prompt": "a", "chosen": " b", "rejected": " c"}])
    settings = DataSettings(train=[SourceSettings(path)])
    report = prepare(settings, no_bos, frozenset({"labels"}), tmp_path).report
    lines = data_lines(report, settings)
    assert lines[0] == f"train: 1 of 1 rows of {path} (format trl); 1 desirable and 1 undesirable responses"
    assert lines[1].startswith("  1 rows have no labels: chosen responses are labelled desirable")


def test_data_that_train_would_refuse_are_shown_whole_and_then_refused(jsonl, no_bos, tmp_path, capsys):
    rows = [
        *({"prompt": f"q{n}", "chosen": " good", "rejected": f" bad {n}"} for n in range(4)),
        {"prompt": "a", "chosen": "", "rejected": " b"},
        {"prompt": "a", "chosen": " b", "rejected": " b"},
        {"prompt": "a", "chosen": " b"},
        {"prompt": "a", "chosen": 3, "rejected": " b"},
    ]
    data = DataSettings(train=[SourceSettings(jsonl(rows))], cache_dir=str(tmp_path / "cache"))
    run = compose([f"model.path={no_bos}", "loss=dpo"])
    with pytest.raises(UserError) as refused:
        show_data(replace(run, data=data), 1)
    shown = capsys.readouterr().out
    assert refused.value.exit_code == 2
    assert "prefopt train would refuse these data: data.train: 4 of 8 rows (50.0%) are left out: " in str(refused.value)
    assert "and 1 reason more (1)" in str(refused.value)
    assert "prefopt data" not in refused.value.hint
    assert "chosen: [[ good</s>]]" in shown
    assert "4 rows left out" in shown
    assert "rows.jsonl:6: chosen equals rejected" in shown


def test_the_data_of_a_run_are_shown_again_and_compared_with_what_it_was_trained_on(jsonl, no_bos, tmp_path, capsys):
    path = jsonl([{"prompt": f"q{n}", "chosen": " good", "rejected": f" bad {n}"} for n in range(4)])
    data = DataSettings(train=[SourceSettings(path)], cache_dir=str(tmp_path / "cache"))
    run = replace(compose([f"model.path={no_bos}", "loss=dpo"]), data=data)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.yaml").write_text(yaml.safe_dump(asdict(run)))
    needs = frozenset({"pairs", "reference"})
    fingerprint = prepare(data, no_bos, needs, tmp_path / "cache").fingerprint
    (folder / "manifest.json").write_text(json.dumps({"data_fingerprint": fingerprint}))
    shown_again, where = recorded([f"run={folder}"])
    assert show_data(shown_again, 1, where) == 0
    assert capsys.readouterr().out.endswith(f"these are the data that were prepared for {folder}\n")
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    assert show_data(shown_again, 1, where) == 0
    assert capsys.readouterr().out.endswith(f"these are the data that {folder} was trained on\n")
    jsonl([{"prompt": "q", "chosen": " good", "rejected": " bad"}])
    with pytest.raises(UserError, match=r"these are not the data that .* was trained on: the rows"):
        show_data(run, 0, folder)
    with pytest.raises(UserError, match="loss=ipo: has no effect beside run="):
        recorded([f"run={folder}", "loss=ipo"])
    with pytest.raises(UserError, match="no folder of prefopt train"):
        recorded([f"run={tmp_path}"])


def test_a_row_that_is_there_twice_is_named_before_a_run(jsonl, no_bos, tmp_path):
    row = {"prompt": "a", "chosen": " b", "rejected": " c"}
    path = jsonl([row, {**row, "chosen": " d"}, {**row, "prompt": "e"}, {**row, "chosen": " d"}])
    settings = DataSettings(train=[SourceSettings(path)])
    report = prepare(settings, no_bos, frozenset({"pairs"}), tmp_path).report
    assert report["sets"]["train"]["repeated"] == {
        "prompts": 2,
        "looked_at": 2,
        "same": 1,
        "examples": [
            {"row": "rows.jsonl:4", "of": "rows.jsonl:2", "same": True},
            {"row": "rows.jsonl:2", "of": "rows.jsonl:1", "same": False},
        ],
    }
    said = data_lines(report, settings)
    assert "  1 of the rows of train is there twice: rows.jsonl:4 is rows.jsonl:2" in said
    text = shown(path, no_bos, tmp_path)
    assert "train: rows.jsonl:4 is the same row as rows.jsonl:2" in text
    assert "train: rows.jsonl:2 has the prompt, not the responses, of rows.jsonl:1" in text
    assert not any("is there twice" in line for line in data_lines(prepare_first(path, no_bos, tmp_path), settings))


def prepare_first(path: str, tokenizer: str, cache) -> dict:
    """The report of a file's first three rows."""
    return prepare(DataSettings(train=[SourceSettings(path, limit=3)]), tokenizer, frozenset({"pairs"}), cache).report


def test_unknown_tokens_are_said_before_a_run(jsonl, tmp_path):
    words = models.WordLevel({"<unk>": 0, "</s>": 1, "good": 2, "bad": 3, "hello": 4}, unk_token="<unk>")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = str(tmp_path / "tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
    settings = DataSettings(
        train=[SourceSettings(jsonl([{"prompt": "hello you", "chosen": " good", "rejected": " bad"}]))]
    )
    report = prepare(settings, folder, frozenset({"pairs"}), tmp_path).report
    assert data_lines(report, settings)[-1].startswith("  1 tokens are unknown: ")


def test_the_rows_held_out_are_shown_by_their_ids(jsonl, no_bos, tmp_path):
    rows = [{"prompt": f"q{n}", "chosen": " good", "rejected": f" bad {n}"} for n in range(40)]
    path, data = jsonl(rows), {"eval_size": 3}
    ids = (
        prepare(DataSettings(train=[SourceSettings(path)], **data), no_bos, frozenset({"pairs"}), tmp_path)
        .eval["heldout"]
        .ids
    )
    assert len(set(ids)) == 3
    assert set(ids) <= {f"rows.jsonl:{n}" for n in range(1, 41)}
    assert f"held out: {', '.join(ids)}\n" in shown(path, no_bos, tmp_path, data=data)


def test_the_dry_run_names_the_template_and_not_only_its_key(chat):
    run = compose([f"model.path={chat}", "data.chat_template=chatml"])
    assert template_lines(run, "MODEL")[0] == "taken from data.chat_template=chatml"
    text = replace(run, data=replace(run.data, chat_template="{{ messages[0].content }}"))
    assert template_lines(text, "MODEL")[0] == "taken from data.chat_template=(a text)"
    assert template_lines(compose([f"model.path={chat}"]), "MODEL")[0] == "taken from MODEL"


def test_prompts_without_words_are_kept_and_counted(jsonl, with_bos, tmp_path):
    rows = [{"instruction": text, "input": "", "chosen": "good", "rejected": "bad"} for text in ("", " ", "What?")]
    path = jsonl(rows)
    settings = DataSettings(train=[SourceSettings(path)], chat_template="hh")
    prepared = prepare(settings, with_bos, frozenset({"pairs"}), tmp_path)
    assert prepared.report["total"]["empty_prompts"] == 2
    assert prepared.report["total"]["kept"] == 3
    assert "  2 rows have prompts without words; kept" in data_lines(prepared.report, settings)
