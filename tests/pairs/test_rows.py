"""Rows that were written are read by `prefopt train`'s own readers: the same texts, the same scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bed_select import example
from hypothesis import given
from hypothesis import strategies as st

from prefopt.data.formats import recognise
from prefopt.data.load import read_rows
from prefopt.pairs.chance import chance_of
from prefopt.pairs.registry import make_stage, names, typed
from prefopt.pairs.rows import Rows, margin_names
from prefopt.pairs.stages import WINS
from prefopt.records import Candidate, Example, Message
from prefopt.settings import SourceSettings

PLAIN = (Message("user", "Q: why?\nA:"),)
CHAT = (
    Message("system", "Be brief.\u2028"),
    Message("user", "Why?"),
    Message("assistant", "How?"),
    Message("user", "So"),
)
TEXTS = ["one", "two\u2028words", ' "three" more, words', "four | bars\n\nand lines", "fünf", "六"]
SCORES = [0.1, 2.5, -1.0, 1e-7, 3.0, 2.5]


def scored(is_chat: bool, margins: tuple[str, ...] = ()) -> Example:
    candidates = [
        Candidate(text, score=score, margins=tuple(score * n for n in range(2, 2 + len(margins))) or None)
        for text, score in zip(TEXTS, SCORES, strict=True)
    ]
    return Example("prompts.jsonl:17", CHAT if is_chat else PLAIN, tuple(candidates), is_chat)


def written(of: Example, name: str, margins: tuple[str, ...] = (), **settings: Any) -> list[dict[str, Any]]:
    """The rows of one prompt, through its selector."""
    full = typed("select", {"name": name, **settings})
    stage = make_stage("select", full)
    return Rows(stage, full, 42, margins)(of, stage(of, chance_of(42, of, "select")))


def read_back(rows: list[dict[str, Any]], file: Path, margins: tuple[str, ...] = ()) -> Iterator[Example]:
    """The rows as `prefopt train` reads them from a file."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    found = list(read_rows(SourceSettings(str(file))))
    recognised = recognise(found, "auto", file.name)
    needs = frozenset({"scores"}) | ({"margins"} if margins else set())
    for row in found:
        yield recognised.example(row, needs, margins)


@pytest.mark.parametrize("is_chat", [False, True], ids=["plain", "chat"])
@pytest.mark.parametrize("name", names("select"))
def test_every_row_is_read_as_what_was_selected(name: str, is_chat: bool, tmp_path: Path) -> None:
    settings = {"rso": {"num_samples": 4}, "above": {"threshold": 1.0}, "length_balanced": {"one_sided": "keep"}}
    of = scored(is_chat)
    rows = written(of, name, **settings.get(name, {}))
    assert rows
    score_of = dict(zip(TEXTS, SCORES, strict=True))
    for row, read in zip(rows, read_back(rows, tmp_path / "pairs.jsonl"), strict=True):
        assert read.prompt == of.prompt
        assert read.is_chat == is_chat
        texts = [candidate.text for candidate in read.candidates]
        if "completion" in row:
            assert texts == [row["completion"]]
        else:
            assert [candidate.score for candidate in read.candidates] == [score_of[text] for text in texts]
            assert texts == row.get("responses", [row.get("chosen"), row.get("rejected")])


@pytest.mark.parametrize("name", ["best_vs_worst", "keep_all"])
def test_other_objectives_are_read_by_their_names(name: str, tmp_path: Path) -> None:
    margins = ("length", "reward_2")
    rows = written(scored(True, margins), name, margins)
    for read in read_back(rows, tmp_path / "pairs.jsonl", margins):
        assert [c.margins for c in read.candidates] == [
            (2 * (c.score or 0), 3 * (c.score or 0)) for c in read.candidates
        ]


@given(
    texts=st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=5, unique=True),
    scores=st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=5),
    prompt=st.text(min_size=1).filter(str.strip),
)
def test_any_text_survives(texts: list[str], scores: list[float], prompt: str, tmp_path_factory: Any) -> None:
    of = example(scores[: len(texts)], texts, prompt=prompt)
    rows = written(of, "all_pairs")
    if not rows:
        return
    file = tmp_path_factory.mktemp("rows") / "pairs.jsonl"
    for row, read in zip(rows, read_back(rows, file), strict=True):
        assert read.prompt == of.prompt
        assert [c.text for c in read.candidates] == [row["chosen"], row["rejected"]]
        assert [c.score for c in read.candidates] == [row["score_chosen"], row["score_rejected"]]


def test_a_pair_that_a_judge_decided_has_the_judges_probabilities() -> None:
    of = example([0.4, 0.6], wins=[[0.5, 0.7], [0.3, 0.5]])
    (row,) = written(of, "tournament")
    assert (row["chosen"], row["score_chosen"]) == ("answer 0", 0.7)
    assert row["score_rejected"] == pytest.approx(0.3)
    (row,) = written(of, "best_vs_worst")
    assert (row["chosen"], row["score_chosen"], row["score_rejected"]) == ("answer 1", 0.6, 0.4)


def test_provenance_says_where_prompt_and_candidates_come_from() -> None:
    candidates = (
        Candidate("yes", score=2.0, source={"policy": "a", "sample": 0, WINS: [0.5, 1.0]}),
        Candidate("no", score=1.0, source={"given": True, WINS: [0.0, 0.5]}),
    )
    of = Example("prompts.jsonl:17", PLAIN, candidates, False)
    settings = typed("select", {"name": "tournament"})
    stage = make_stage("select", settings)
    (row,) = Rows(stage, settings, 7)(of, stage(of, chance_of(7, of, "select")), [{"raw": "Score: 2"}, {}])
    assert row["provenance"] == {
        "id": "prompts.jsonl:17",
        "line": 17,
        "candidates": [
            {
                "sha256": hashlib.sha256(b"yes").hexdigest(),
                "score": 2.0,
                "margins": None,
                "details": {"raw": "Score: 2"},
                "source": {"policy": "a", "sample": 0},
            },
            {
                "sha256": hashlib.sha256(b"no").hexdigest(),
                "score": 1.0,
                "margins": None,
                "details": None,
                "source": {"given": True},
            },
        ],
        "select": {"name": "tournament", "order": "drawn"},
        "seed": 7,
        "chosen": 0,
        "rejected": 1,
    }


def test_a_target_is_the_column_y_ref(tmp_path: Path) -> None:
    of = Example("a:1", PLAIN, (Candidate("b", score=1.0), Candidate("c", score=0.0)), False, "imitate me")
    rows = written(of, "best_vs_worst")
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(read_rows(SourceSettings(str(file))))
    assert recognise(found, "auto", "").example(found[0], frozenset({"targets"})).target == "imitate me"


def test_parquet_holds_the_rows_and_gives_them_back(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = written(scored(True), "best_vs_worst") + written(example([0.0, 1.0], wins=[[0.5, 0], [1, 0.5]]), "all_pairs")
    rows = [row for row in rows if isinstance(row["prompt"], list)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    found = list(read_rows(SourceSettings(str(tmp_path / "pairs.parquet"))))
    read = recognise(found, "auto", "").example(found[0], frozenset({"scores"}))
    assert [c.text for c in read.candidates] == [rows[0]["chosen"], rows[0]["rejected"]]


def test_objectives_of_one_stage_are_numbered() -> None:
    stages = ("reward", "length", "reward", "reward_heads", "reward")
    assert margin_names([{"name": name} for name in stages]) == (
        *("reward", "length", "reward_2", "reward_heads", "reward_3"),
    )


def test_names_that_rows_use_themselves_are_refused() -> None:
    stage = make_stage("select", {"name": "all_pairs"})
    with pytest.raises(ValueError, match="margins must have names of their own, not score"):
        Rows(stage, {}, 0, ("score",))
