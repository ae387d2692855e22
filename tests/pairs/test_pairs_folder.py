"""What lies in the folder of `prefopt pairs`: damage is named, shares are whole, tables have every column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefopt.errors import RunError, UserError
from prefopt.pairs import table
from prefopt.pairs.folder import PROMPTS, Folder
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import Generated, Judged, LeftOut
from prefopt.pairs.table import write_table
from prefopt.pairs.work import Share
from prefopt.pairs_workers import shard_of
from prefopt.records import Candidate, Example, Message, example_to_json


def example(number: int) -> Example:
    return Example(f"p.jsonl:{number}", (Message("user", f"Why {number}?\u2028"),), (Candidate("So."),), False)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Five prompts in chunks of two, all of them answered and judged; the last prompt is left out."""
    (tmp_path / PROMPTS).write_text("".join(example_to_json(example(n)) + "\n" for n in range(5)), encoding="utf-8")
    made = Folder(tmp_path, PairsSettings(chunk_size=2))
    for chunk in range(made.num_chunks):
        answered = [Generated((one,)) if one.id != "p.jsonl:4" else Generated((), (LeftOut(one.id, "no candidate"),))
                    for one in made.prompts(chunk)]  # fmt: skip
        made.write_generated(chunk, answered)
        made.write_judged("judged/score", chunk, [Judged((1.0,), (None,))] * sum(len(a.examples) for a in answered))
    return made


def test_chunks_are_the_prompts_in_their_order(folder: Folder) -> None:
    assert folder.num_chunks == 3
    assert [[one.id for one in folder.prompts(chunk)] for chunk in range(3)] == [
        ["p.jsonl:0", "p.jsonl:1"],
        ["p.jsonl:2", "p.jsonl:3"],
        ["p.jsonl:4"],
    ]
    assert folder.prompts(1)[0] == example(2)
    assert folder.is_judged
    assert folder.generated(2) == [Generated((), (LeftOut("p.jsonl:4", "no candidate"),))]
    assert folder.judged("judged/score", 0) == [Judged((1.0,), (None,))] * 2


def whole(text: bytes) -> bytes:
    return text.splitlines(keepends=True)[0]


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("generated/00000.jsonl", lambda text: text[:-9], r"generated/00000.jsonl:2 is damaged"),
        ("generated/00000.jsonl", whole, r"generated/00000.jsonl is damaged: it has 1 lines where 2 were written"),
        ("generated/00000.jsonl", lambda text: b"", r"it has 0 lines where 2 were written"),
        ("generated/00000.jsonl", lambda text: b"\xff" + text, r"generated/00000.jsonl:1 is damaged"),
        ("generated/00000.jsonl", lambda text: b"7\n" + text, r"generated/00000.jsonl:1 is damaged"),
        ("generated/00000.jsonl", lambda text: text.replace(b'"prompt"', b'"pr"'), r"generated/00000.jsonl:1"),
        ("judged/score/00000.jsonl", lambda text: b"{}\n" + text, r"judged/score/00000.jsonl:1 is damaged"),
        ("judged/score/00000.jsonl", whole, r"it has 1 lines where 2 were written"),
    ],
)
def test_a_damaged_chunk_is_named_and_no_prompt_of_it_is_lost_in_silence(
    file: str, damage: Any, said: str, folder: Folder
) -> None:
    path = folder.path / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match=said) as refused:
        folder.judged("judged/score", 0)
    assert refused.value.hint == "delete that file: the same command makes it again"


def test_answers_that_are_made_again_are_judged_again(folder: Folder) -> None:
    (folder.path / "generated/00001.jsonl").unlink()
    folder.write_generated(1, [Generated((one,)) for one in folder.prompts(1)])
    assert folder.missing("judged/score") == [1]


@given(st.integers(0, 60), st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_shards_of_machines_with_any_number_of_processes_take_every_chunk_once(
    chunks: int, processes: list[int]
) -> None:
    shares = [Share(shard, len(processes), number, of) for shard, of in enumerate(processes) for number in range(of)]
    assert all(sum(share.takes(chunk) for share in shares) == 1 for chunk in range(chunks))


def test_a_shard_is_k_of_n() -> None:
    assert shard_of(None) == (0, 1)
    assert shard_of("2/3") == (2, 3)
    for said in ("3/3", "0/0", "-1/3", "1", "1/2/3", "a/b", " 1/2", "٣/٤"):
        with pytest.raises(UserError, match=r"expected K/N with K from 0 to N - 1"):
            shard_of(said)


ARRAY = {"ID": "6", "MIN": "4", "MAX": "8", "STEP": "2", "COUNT": "3"}


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({f"SLURM_ARRAY_TASK_{key}": value for key, value in ARRAY.items()}, (1, 3)),
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "1"}, (0, 1)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, (2, 4)),
    ],
)
def test_slurm_tells_which_part(
    environment: dict[str, str], part: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert shard_of("slurm") == part


def test_an_array_with_gaps_and_no_slurm_at_all_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="neither a task of a job array nor of a step"):
        shard_of("slurm")
    for key, value in {"ID": "7", "MIN": "0", "MAX": "7", "STEP": "1", "COUNT": "3"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{key}", value)
    with pytest.raises(UserError, match="3 tasks from 0 to 7: which part is whose, cannot be told"):
        shard_of("slurm")


def test_a_table_has_columns_and_types_that_only_later_rows_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "ROWS_AT_ONCE", 2)
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "score": 1, "provenance": {"x": None}},
        {"prompt": "b", "score": 2, "provenance": {}},
        {"prompt": "c", "score": 0.5, "y_ref": "t", "provenance": {"y": [1]}},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_table(tmp_path / "rows.jsonl", tmp_path / "rows.parquet")
    found = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [row["score"] for row in found] == [1.0, 2.0, 0.5]
    assert [row["y_ref"] for row in found] == [None, None, "t"]
    assert [json.loads(row["provenance"]) for row in found] == [row["provenance"] for row in rows]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.jsonl", "rows.parquet"]


def test_prompts_of_both_kinds_are_text_in_one_table(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Why?"}]
    rows = [{"prompt": "a", "provenance": {}}, {"prompt": chat, "provenance": {}}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_table(tmp_path / "rows.jsonl", tmp_path / "rows.parquet")
    found = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [json.loads(row["prompt"]) for row in found] == ["a", chat]
