"""`prefopt import` and LLaMA-Factory's dataset_info.json: of every key it is said whether it is taken over or lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prefopt.cli import main
from prefopt.data.formats import recognise
from prefopt.data.load import read_rows
from prefopt.peers.command import missing, understand
from prefopt.peers.taking import Kind, Options, Taking
from prefopt.settings import SourceSettings

PAIRS = {"chosen": "chosen", "rejected": "rejected"}
ALPACA = {"prompt": "instruction", "query": "input", **PAIRS}
OPENAI = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


def taken_of(folder: Path, about: dict[str, Any], rows: str = "", more: str = "") -> tuple[dict[str, Any], Taking]:
    """The source that an entry becomes, and the account. rows: what the file rows.jsonl holds."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data/dataset_info.json").write_text(json.dumps({"mine": about}))
    if rows:
        (folder / "data/rows.jsonl").write_text(rows)
    file = folder / "lf.yaml"
    file.write_text(f"model_name_or_path: m\nstage: dpo\nfinetuning_type: full\ndataset: mine\n{more}")
    taken = understand(file, Options())[1]
    (source,) = taken.settings["data.train"]
    lines = {line.key for line in taken.lines}
    assert {f"mine.{key}" for key in about} <= lines
    return source, taken


def kinds(taken: Taking) -> dict[str, Kind]:
    return {line.key.removeprefix("mine."): line.kind for line in taken.lines if line.key.startswith("mine.")}


@pytest.mark.parametrize(
    ("about", "name"),
    [
        ({"ranking": True, "columns": ALPACA}, "alpaca"),
        ({"ranking": True, "columns": {**ALPACA, "system": "system", "history": "history"}}, "alpaca"),
        ({"ranking": True, "formatting": "sharegpt", "columns": {"messages": "conversations", **PAIRS}}, "sharegpt"),
        (
            {"ranking": True, "formatting": "sharegpt", "columns": {"messages": "messages", **PAIRS}, "tags": OPENAI},
            "sharegpt",
        ),
        ({"columns": {"prompt": "instruction", "query": "input", "response": "output"}}, "sft"),
        ({}, "sft"),
        ({"columns": {"prompt": "instruction", "response": "output", "kto_tag": "kto_tag"}}, "labels"),
        (
            {"formatting": "sharegpt", "columns": {"messages": "messages", "kto_tag": "label"}, "tags": OPENAI},
            "labels",
        ),
        ({"formatting": "sharegpt", "columns": {"messages": "conversations", "system": "system"}}, "sft"),
    ],
)
def test_columns_that_are_read_alike_become_a_format(about: dict[str, Any], name: str, tmp_path: Path) -> None:
    source, taken = taken_of(tmp_path, {"file_name": "rows.jsonl", **about})
    assert source == {"path": f"{tmp_path}/data/rows.jsonl", "format": name}
    assert set(kinds(taken).values()) == {Kind.TAKEN}
    assert missing(taken) == []


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"ranking": True, "columns": {"prompt": "question", **PAIRS}}, "rename its columns, question to instruction"),
        # recognised as TRL's, whose text stands without a template: another prompt
        ({"ranking": True, "columns": {"prompt": "prompt", **PAIRS}}, "rename its columns, prompt to instruction"),
        ({"ranking": True, "columns": {**ALPACA, "chosen": "rejected", "rejected": "chosen"}}, "rejected to chosen"),
        ({"columns": {"prompt": "instruction", "response": "answer", "system": "s"}}, "answer to output, s to system"),
        ({"formatting": "sharegpt", "tags": {**OPENAI, "user_tag": "me"}}, "write them in a format of docs"),
        (
            {"formatting": "sharegpt", "columns": {"messages": "conversations", "images": "p"}},
            ": images cannot be taken over",
        ),
    ],
)
def test_columns_that_are_not_read_alike_are_lost_and_said_at_the_end(
    about: dict[str, Any], said: str, tmp_path: Path
) -> None:
    source, taken = taken_of(tmp_path, {"file_name": "rows.jsonl", **about})
    assert "format" not in source
    lost = {key for key, kind in kinds(taken).items() if kind is Kind.NONE}
    assert lost == set(about)
    (line,) = missing(taken)
    assert line.startswith("mine: its rows are not read as LLaMA-Factory reads them")
    assert said in line


def test_a_column_of_the_file_that_the_map_leaves_out_has_another_meaning(tmp_path: Path) -> None:
    row = {"instruction": "i", "input": "x", "chosen": "c", "rejected": "r"}
    columns = {"prompt": "instruction", **PAIRS}
    about = {"file_name": "rows.jsonl", "ranking": True, "columns": columns}
    _, taken = taken_of(tmp_path, about, json.dumps({**row, "input": ""}) + "\n")
    assert kinds(taken)["columns"] is Kind.TAKEN
    source, taken = taken_of(tmp_path, about, json.dumps(row) + "\n")
    assert kinds(taken)["columns"] is Kind.OTHER
    (line,) = [line for line in taken.lines if line.key == "mine.columns"]
    assert line.said.startswith("input of the file is read too")
    (read,) = read_rows(SourceSettings(source["path"]))
    example = recognise([read], source["format"], "rows").example(read)
    assert example.prompt[0].content == "i\nx"


def test_other_keys_of_an_entry_are_taken_over_or_named(tmp_path: Path) -> None:
    about = {"hf_hub_url": "o/d", "file_name": "rows.jsonl", "subset": "en", "split": "test", "num_samples": 9}
    source, taken = taken_of(tmp_path, {**about, "folder": "f"}, more="max_samples: 20\n")
    assert source == {"path": "o/d", "name": "en", "split": "test", "limit": 9, "format": "sft"}
    assert kinds(taken) == {
        "hf_hub_url": Kind.TAKEN, "file_name": Kind.NONE, "subset": Kind.TAKEN, "split": Kind.TAKEN,
        "num_samples": Kind.OTHER, "folder": Kind.NONE,
    }  # fmt: skip


def test_the_command_says_at_its_end_what_has_to_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    taken_of(tmp_path, {"file_name": "rows.jsonl", "ranking": True, "columns": {"prompt": "question", **PAIRS}})
    assert main(["import", "lf.yaml"]) == 0
    *_, line, last = capsys.readouterr().out.strip().split("\n")
    assert line.endswith("before you train, rename its columns, question to instruction")
    assert last.startswith("look at it: ")
