"""Files become rows with their file and number; a file that is broken says where."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from prefopt.data.load import read_rows
from prefopt.errors import RunError, UserError
from prefopt.settings import SourceSettings

ROWS = [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "d", "chosen": "e\n\u2028\x85f", "rejected": "g"}]


def rows_of(path: Path | str, **settings: object) -> list[dict]:
    return [row.value for row in read_rows(SourceSettings(str(path), **settings))]


def test_jsonl_lines_end_at_newline_only(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in ROWS), encoding="utf-8")
    rows = list(read_rows(SourceSettings(str(path))))
    assert [row.value for row in rows] == ROWS
    assert [(row.file, row.number, row.id) for row in rows] == [
        ("a.jsonl", 1, "a.jsonl:1"),
        ("a.jsonl", 2, "a.jsonl:2"),
    ]


def test_blank_lines_are_passed_over_and_numbers_stay_line_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"x": 1}\r\n\r\n\n{"x": 2}\r\n')
    assert [(row.number, row.value) for row in read_rows(SourceSettings(str(path)))] == [(1, {"x": 1}), (4, {"x": 2})]


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.jsonl.gz", "a.parquet", "a.csv", "a.csv.gz"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name):
    path = tmp_path / name
    if ".parquet" in name:
        pa.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        lines = "\n".join(json.dumps(r) for r in ROWS)
        text = json.dumps(ROWS) if ".json" in name and "jsonl" not in name else lines
        if ".csv" in name:
            cells = [",".join(f'"{value}"' for value in row.values()) for row in ROWS]
            text = "\n".join(["prompt,chosen,rejected", *cells])
        (gzip.open if name.endswith(".gz") else open)(path, "wb").write(text.encode())
    assert rows_of(path) == ROWS
    assert rows_of(path, limit=1) == ROWS[:1]


def test_a_json_file_with_one_object_a_line_is_read_as_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    assert rows_of(path) == ROWS


def test_a_saved_folder_is_read_with_its_split(tmp_path):
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=saved, test=saved.select([1])).save_to_disk(str(tmp_path / "two"))
    assert rows_of(tmp_path / "one") == ROWS
    assert rows_of(tmp_path / "two", split="test") == ROWS[1:]
    with pytest.raises(UserError, match="no split 'tets'") as error:
        rows_of(tmp_path / "two", split="tets")
    assert "'test'" in error.value.hint


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"x": 1}\n{"x": "cut he', r"a\.jsonl:2: not valid JSON"),
        (
            "a.jsonl",
            b'{"x": 1}\n{"x\n{}\n\n[\n{"y": \n',
            r"a\.jsonl:2: not valid JSON .*; 3 lines in all are damaged: 2, 5, 6",
        ),
        (
            "a.jsonl",
            b'{"x": "a\tb"}\n',
            r"\(Invalid control character at column 9\); no other line is damaged\n.*delete it",
        ),
        ("a.jsonl", b'{"x": "\xff"}\n{\n', r"a\.jsonl:1: not valid UTF-8 .*; 2 lines in all are damaged: 1, 2\n"),
        ("a.jsonl", b"{\n" * 30, r"; 30 lines in all are damaged: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 \.\.\.\n.*delete them"),
        ("a.jsonl", b'[\n{"x": 1}\n]\n', r"a\.jsonl: begins like a JSON array(.|\n)*rename it a\.json,"),
        ("a.jsonl", b'\n[{"x": 1}, {"x": 2}]\n', r"a\.jsonl: begins like a JSON array"),
        ("a.jsonl", b'{"x": 1}\n{"x": "\xff"}\n', r"a\.jsonl:2: not valid UTF-8 \(byte 0xff"),
        ("a.jsonl", b'{"x": 1}\n[1]\n', r"a\.jsonl:2: a row must be an object .* not a list"),
        ("a.json", b'[{"x": 1},\n {"x": ', r"a\.json:2: not valid JSON"),
        ("a.json", b'[{"x": 1}, 3]', r"a\.json: element 2: a row must be an object"),
        ("a.csv", b"x,y\n1,2\n1,2,3\n", r"a\.csv:3: 3 fields where the first line names 2"),
        ("a.csv", b"x,x\n1,2\n", r"a\.csv:1: two columns of one name"),
        ("a.csv", b'x,y\n"1,2\n', r"a\.csv:2: not valid CSV"),
        ("a.jsonl.gz", b"not gzip", r"not a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b'{"x": 1}\n' * 999, mtime=0)[:-20], r"not a whole gzip file"),
        ("a.parquet", b"PAR1nothing", r"not a whole Parquet file"),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl:1: (JSON nested|not valid JSON)"),
        ("a.txt", b"hello", r"no reader for this kind of file"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        rows_of(path)
    assert error.value.exit_code == 2


def test_a_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(UserError, match="no such file") as error:
        rows_of(tmp_path / "trian.jsonl")
    assert "train.jsonl" in error.value.hint
    with pytest.raises(UserError, match="no such file") as error:
        rows_of(tmp_path / "nowhere" / "train.jsonl")
    assert "no folder" in error.value.hint


def test_a_folder_that_was_not_saved_by_datasets_is_refused(tmp_path):
    with pytest.raises(UserError, match="not one saved by"):
        rows_of(tmp_path)


def test_a_hub_name_without_network_says_so_with_exit_code_1():
    with pytest.raises(RunError, match="neither a file or folder here nor a data set") as error:
        rows_of("some-owner/some-preferences")
    assert error.value.exit_code == 1
    assert "network" in error.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_failure(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("{}")
    path.chmod(0)
    with pytest.raises(RunError, match="cannot be read"):
        rows_of(path)


def test_a_limit_below_one_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 1}\n')
    with pytest.raises(UserError, match="limit must be 1 or more"):
        rows_of(path, limit=0)
