"""Rows and files that are a mess: every row is kept or left out with a reason, or the file is refused in one sentence.

The files are those of `scripts/messy_rows.py`; hypothesis chooses, and finds the smallest one that fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from fuzz_rows import all_needs, check_account, draw_settings, examine
from messy_rows import FORMATS, Written, make_rows, spoil, write_rows

from prefopt.data.dataset import DropError, prepare
from prefopt.errors import UserError
from prefopt.settings import DataSettings, SourceSettings

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}


def prepared_of(path: Path, tokenizer: str, needs: frozenset[str] = frozenset({"pairs"}), **more: object):
    """What becomes of a file, whatever share of its rows is left out."""
    data = DataSettings(train=[SourceSettings(str(path))], **{"max_drop_fraction": 1.0, "num_workers": 1, **more})
    return prepare(data, tokenizer, needs, path.parent / "cache")


@settings(max_examples=12)
@given(random=st.randoms(use_true_random=False), count=st.integers(1, 12), number=st.integers(0, 50))
def test_any_file_is_accounted_for_or_refused(chat: str, random: Random, count: int, number: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = write_rows(random, Path(folder), make_rows(random, count))
        needs = all_needs()
        chosen = needs[number % len(needs)]
        outcome = examine(0, file, chosen, draw_settings(random, file.path), chat, Path(folder) / "cache")
    assert not outcome.crash, outcome.crash


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=6)
@given(random=st.randoms(use_true_random=False))
def test_spoilt_rows_of_every_format_behind_whole_ones(chat: str, name: str, random: Random) -> None:
    whole = [FORMATS[name](Random(number)) for number in range(64)]  # by so many the format is recognised
    rows = [*whole, *(spoil(random, FORMATS[name](Random(number))) for number in range(5))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        try:
            prepared = prepared_of(path, chat, frozenset())
            report, left_out = prepared.report, prepared.left_out
            kept = [int(example.id.rpartition(":")[2]) for example in prepared.train]
        except DropError as error:
            report, left_out, kept = error.prepared.report, error.prepared.left_out, []
    check_account(report["total"], kept, left_out, len(rows))


def test_the_account_that_is_checked_can_be_wrong() -> None:
    left_out = [{"row": 2, "id": "a:2", "reason": "no pair", "detail": ""}]
    check_account({"read": 2, "kept": 1}, [1], left_out, 2)
    for total, kept, rows in (({"read": 2, "kept": 1}, [1], 3), ({"read": 1, "kept": 1}, [1], 2)):
        with pytest.raises(AssertionError):
            check_account(total, kept, left_out, rows)
    with pytest.raises(AssertionError, match="twice"):
        check_account({"read": 2, "kept": 1}, [2], left_out, 2)
    with pytest.raises(AssertionError):
        check_account({"read": 2, "kept": 1}, [1], [{**left_out[0], "reason": ""}], 2)


def test_a_crash_is_told_as_one(chat: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(PAIR) + "\n")
    data = draw_settings(Random(0), path)
    outcome = examine(7, Written(path, 1), frozenset({"pairs"}), data, chat, path)  # a file is no folder for a cache
    assert outcome.number == 7
    assert outcome.crash or outcome.refused
    wrong = examine(0, Written(path, 2), frozenset({"pairs"}), prepared_settings(path), chat, tmp_path / "cache")
    assert "1 of 2 rows read" in wrong.crash


def prepared_settings(path: Path) -> DataSettings:
    return DataSettings(train=[SourceSettings(str(path))], max_drop_fraction=1.0, num_workers=1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            b'{"prompt": "a", "chosen": "b", "rejected": "c", "chosen": "d"}',
            "rows.jsonl:2: an object has the key 'chosen'",
        ),
        (b'{"messages": [{"role": "user", "role": "assistant", "content": "b"}]}', "key 'role' twice"),
        (b'{"prompt": "a", "chosen": "b", "rejected": ' + b"7" * 5000 + b"}", "rows.jsonl:2: a number of more digits"),
        (b'{"prompt": ' + b"[" * 100_000, "rows.jsonl:2"),
        (b'{"prompt": "a", "chosen": "\xed\xa0\x80", "rejected": "c"}', "rows.jsonl:2: not valid UTF-8"),
        (json.dumps(PAIR).encode("utf-16"), "rows.jsonl:2"),
        (b'{"prompt": "a", "\\ud83d": 1, "chosen": "b", "rejected": "c"}', "rows.jsonl:2: the name of a column"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(chat: str, tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(PAIR).encode() + b"\n" + line + b"\n")
    with pytest.raises(UserError) as error:
        prepared_of(path, chat)
    assert said in error.value.message
    assert error.value.exit_code == 2
    assert not list(tmp_path.glob("cache/encoded/*"))


def test_values_of_json_that_are_no_text_or_number(chat: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    scores = ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, '"x"', "[1]", "true", "null"]
    start = json.dumps(PAIR).removesuffix("}") + ', "score_rejected": 0, "score_chosen": '
    rows = [f"{start}{score}}}" for score in scores]
    good = json.dumps({**PAIR, "score_chosen": 1, "score_rejected": 0})
    texts = [json.dumps({**json.loads(good), "chosen": text}) for text in ("\ud800", " ", "")]
    path.write_text("\n".join([good, *rows, *texts]))  # no newline at the end
    prepared = prepared_of(path, chat)
    check_account(prepared.report["total"], [1], prepared.left_out, 13)
    reasons = [row["reason"] for row in prepared.left_out]
    assert reasons == [
        *["score_chosen is not finite"] * 5,
        *["score_chosen is not a number"] * 3,
        "missing score_chosen",
        "chosen is not valid text",
        *["empty response"] * 2,
    ]


@pytest.mark.slow
def test_text_of_ten_megabytes(chat: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [PAIR, {**PAIR, "chosen": "word " * 2_000_000}, {**PAIR, "rejected": "w" * 10_000_000}, PAIR]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepared = prepared_of(path, chat, max_length=1000)
    assert [(row["row"], row["reason"]) for row in prepared.left_out] == [(2, "too long"), (3, "too long")]


def test_a_parquet_file_whose_text_is_not_utf_8(chat: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    text = pa.array([b"a", b"\xff\xfe"], pa.binary()).view(pa.string())
    pa.parquet.write_table(pa.table({"prompt": text, "chosen": ["b", "b"], "rejected": ["c", "c"]}), path)
    with pytest.raises(UserError, match=r"rows\.parquet: .*utf-8"):
        prepared_of(path, chat)


def test_a_parquet_file_with_times_and_binary_beside_the_text(chat: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    far = pa.array([2**62, 1], pa.timestamp("ms"))  # no year of Python's
    table = {"prompt": ["a", "b"], "chosen": ["b", "b"], "rejected": ["c", "c"], "raw": [b"\xff", b"a"], "when": far}
    pa.parquet.write_table(pa.table(table), path)
    with pytest.raises(UserError, match=r"rows\.parquet"):
        prepared_of(path, chat)


def test_a_cut_parquet_file_is_the_users_matter_and_not_the_disks(chat: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pa.parquet.write_table(pa.table({k: [v * 200] * 3000 for k, v in PAIR.items()}), path, compression="snappy")
    whole = bytearray(path.read_bytes())
    whole[40:400] = b"\x7f" * 360  # in the first page: the footer is whole
    path.write_bytes(bytes(whole))
    with pytest.raises(UserError) as error:
        prepared_of(path, chat)
    assert error.value.exit_code == 2
    assert "rows.parquet" in error.value.message


@pytest.mark.slow
def test_a_campaign_finds_no_crash() -> None:
    command = [sys.executable, str(SCRIPTS / "fuzz_rows.py"), "--rows", "3000", "--seed", "7", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["crashes"] == []
    assert found["rows"] == found["kept"] + found["left_out"]
    assert min(found["kept"], found["left_out"], found["files_refused"]) > 0
