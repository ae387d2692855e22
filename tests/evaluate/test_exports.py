"""Files for evaluators: the keys, types and counts of the published ones, and what the real package makes of ours."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from prefopt.evaluate.answer_files import Answer, read_answers
from prefopt.evaluate.exports import alpaca_eval, arena_hard, mt_bench
from prefopt.evaluate.markdown_counts import markdown_counts
from prefopt.evaluate.token_len import token_lens

ALPACA = Path("data/alpaca_eval/outputs/alpaca-7b.json.gz")
O3_MINI = Path("data/arena_hard/v2.0_answer_o3-mini-2025-01-31.jsonl.gz")
GPT_4_0314 = Path("data/arena_hard/v0.1_answer_gpt-4-0314.jsonl.gz")
REFERENCES = Path("data/mt_bench/reference_answer__gpt-4.jsonl")

TURNS = [
    Answer("82", "Three?", "Drei", "m", turn=1),
    Answer("82", "Four?", "Vier\u2028", "m", turn=2),
    Answer("81", "One?", "Eins", "m", turn=1),
    Answer("81", "Two?", "", "m", turn=2),
]


def rows(path: Path) -> list[dict[str, Any]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return json.loads(text) if ".json" in path.suffixes else [json.loads(line) for line in text.split("\n") if line]


def shape(value: Any) -> Any:
    """Keys and types of a value of JSON, all the way down; of a list those of each of its items, once."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(shape(inner), sort_keys=True) for inner in value})
    return type(value).__name__


def shapes(found: list[dict[str, Any]]) -> set[str]:
    return {json.dumps(shape(row), sort_keys=True) for row in found}


def without(found: list[dict[str, Any]], *keys: str) -> Iterator[dict[str, Any]]:
    return ({key: value for key, value in row.items() if key not in keys} for row in found)


def test_alpaca_eval_files_of_real_answers_are_the_real_files(shared: Path, tmp_path: Path) -> None:
    assert rows(alpaca_eval.write(tmp_path, read_answers(shared / ALPACA))) == rows(shared / ALPACA)


def test_arena_hard_files_have_the_schema_and_the_values_of_the_real_ones(shared: Path, tmp_path: Path) -> None:
    real = rows(shared / O3_MINI)
    lens = [row["metadata"]["token_len"] for row in real]
    path = arena_hard.write(tmp_path, "arena-hard-v2.0", read_answers(shared / O3_MINI), lens, 1744155079.5)
    ours = rows(path)
    assert path.relative_to(tmp_path) == Path("arena-hard-v2.0/model_answer/o3-mini-2025-01-31.jsonl")
    assert shapes(ours) == shapes(real)
    assert list(ours[0]) == list(real[0])
    assert list(without(ours, "ans_id", "tstamp")) == list(without(real, "ans_id", "tstamp"))  # all 750 metadata, too


def test_arena_hard_v01_files_are_the_real_ones_and_metadata(shared: Path, tmp_path: Path) -> None:
    real = rows(shared / GPT_4_0314)
    answers = read_answers(shared / GPT_4_0314)
    ours = rows(arena_hard.write(tmp_path, "arena-hard-v0.1", answers, [1] * len(answers), 1711397284.5))
    assert shapes(list(without(ours, "metadata"))) == shapes(real)
    assert list(without(ours, "metadata", "ans_id", "tstamp")) == list(without(real, "ans_id", "tstamp"))


def test_mt_bench_files_have_the_schema_and_the_values_of_the_real_ones(shared: Path, tmp_path: Path) -> None:
    real = rows(shared / REFERENCES)
    path = mt_bench.write(tmp_path, read_answers(shared / REFERENCES), 1686286924.5)
    ours = rows(path)
    assert path.relative_to(tmp_path) == Path("mt_bench/model_answer/gpt-4.jsonl")
    assert shapes(ours) == shapes(real)
    assert list(ours[0]) == list(real[0])
    assert list(without(ours, "answer_id", "tstamp")) == list(without(real, "answer_id", "tstamp"))


def test_mt_bench_rows_hold_their_turns_in_order(tmp_path: Path) -> None:
    made = rows(mt_bench.write(tmp_path, TURNS, 1.5))
    assert [row["question_id"] for row in made] == [82, 81]
    assert [row["choices"] for row in made] == [
        [{"index": 0, "turns": ["Drei", "Vier\u2028"]}],
        [{"index": 0, "turns": ["Eins", ""]}],
    ]


def test_the_same_answers_give_the_same_bytes_and_others_other_ids(tmp_path: Path) -> None:
    path = mt_bench.write(tmp_path, TURNS, 1.5)
    before = path.read_bytes()
    assert mt_bench.write(tmp_path, TURNS, 1.5).read_bytes() == before
    ids = [row["answer_id"] for row in rows(path)]
    other = [replace(TURNS[0], response="Fünf"), *TURNS[1:]]
    changed = [row["answer_id"] for row in rows(mt_bench.write(tmp_path, other, 1.5))]
    assert len(set(ids)) == 2
    assert changed[0] != ids[0]
    assert changed[1] == ids[1]


def test_exports_are_read_as_what_they_were_written_from(tmp_path: Path) -> None:
    one = [Answer("0a", "Say one.", "Eins\u2028\n", "m")]
    assert read_answers(arena_hard.write(tmp_path, "b", one, [2], 1.5)) == one
    assert [(a.id, a.turn, a.response) for a in read_answers(mt_bench.write(tmp_path, TURNS, 1.5))] == [
        (a.id, a.turn, a.response) for a in TURNS
    ]


MARKDOWN = """# One
## Two
 ## no header: it is indented
#none
1. first
  2. second
- a
* b
+ c
**bold** and **two**, not **over
lines** but __low__

```python
# no header
- no item
**no bold**
```
"""


def test_markdown_is_counted_outside_of_fences() -> None:
    assert markdown_counts(MARKDOWN) == {
        "header_count": {"h1": 1, "h2": 1, "h3": 0, "h4": 0, "h5": 0, "h6": 0},
        "list_count": {"ordered": 2, "unordered": 3},
        "bold_count": {"**": 2, "__": 1},
    }


def test_without_the_encoding_of_gpt_4o_token_len_is_the_models_own_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    lens, note = token_lens([Answer("a", "?", "neun Bytes", "m", tokens=3), Answer("b", "?", "", "m", tokens=0)])
    assert lens == [3, 0]
    assert note.startswith(
        "token_len counts tokens of the answering model: the encoding of gpt-4o is not in tiktoken's"
    )
    assert token_lens([Answer("a", "?", "neun Bytes", "m")])[0] == [3]  # 10 bytes / 4, rounded up


# What alpaca_eval 0.6.6 takes from setuptools' pkg_resources, which setuptools no longer has (since 82).
_PKG_RESOURCES = """
from importlib.metadata import distribution as get_distribution
from packaging.version import parse as parse_version
"""

_EVALUATE = """
import json, sys
import alpaca_eval
outputs, reference, annotations = sys.argv[1:]
leaderboard, _ = alpaca_eval.evaluate(
    model_outputs=outputs, reference_outputs=reference, annotators_config="weighted_alpaca_eval_gpt4_turbo",
    fn_metric="get_winrate", sort_by="win_rate", precomputed_leaderboard=None, output_path=None,
    is_return_instead_of_print=True, is_cache_leaderboard=False, caching_path=annotations,
)
print("LEADERBOARD", json.dumps(json.loads(leaderboard.to_json(orient="index"))))
"""


@pytest.mark.slow
def test_the_package_alpaca_eval_gives_our_file_the_published_win_rate(shared: Path, tmp_path: Path) -> None:
    if find_spec("alpaca_eval") is None:
        pytest.skip("needs the package alpaca_eval")
    if find_spec("pkg_resources") is None:
        (tmp_path / "pkg_resources.py").write_text(_PKG_RESOURCES, encoding="utf-8")
    data = shared / "data/alpaca_eval"
    ours = alpaca_eval.write(tmp_path, read_answers(shared / ALPACA))
    annotations, reference = tmp_path / "annotations.json", tmp_path / "reference.json"
    judged = data / "annotations_weighted_gpt4_turbo/alpaca-7b.json.gz"
    annotations.write_bytes(gzip.decompress(judged.read_bytes()))
    reference.write_bytes(gzip.decompress((data / "outputs/gpt4_1106_preview.json.gz").read_bytes()))
    nowhere = {"HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "none", "OPENAI_BASE_URL": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", _EVALUATE, str(ours), str(reference), str(annotations)],
        env={**os.environ, **nowhere, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    line = next(line for line in done.stdout.split("\n") if line.startswith("LEADERBOARD "))
    (found,) = json.loads(line.removeprefix("LEADERBOARD ")).items()
    with open(data / "leaderboard_AlpacaEval_2.csv", encoding="utf-8", newline="") as file:
        published = next(row for row in csv.DictReader(file) if row[""] == "alpaca-7b")
    assert found[0] == "alpaca-7b"
    for key in ("win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "avg_length"):
        assert found[1][key] == pytest.approx(float(published[key]), rel=1e-9), key
