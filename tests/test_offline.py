"""Without a network: what needs nothing from the hub works, the rest says in one sentence what is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tiny import prefopt


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with rows in it, and an empty cache of the hub."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    row = {"prompt": "ask ", "chosen": "yes", "rejected": "no"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    "words", [["losses", "simpo"], ["train", "recipe=simpo_llama3_instruct", "--show-config"], ["train", "--help"]]
)
def test_what_needs_no_model_works(words: list[str], place: Path) -> None:
    done = prefopt(words, place / "cache", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout


PAIRS = ["pairs", "generate=sample", "score=length", "select=best_vs_worst", "prompts=rows.jsonl", "policy=org/none"]
DATA = ["data", "model.path=org/none", "data.train=[{path: rows.jsonl}]"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [PAIRS, DATA], ids=["pairs", "data"])
def test_what_needs_the_hub_names_what_is_missing(words: list[str], place: Path) -> None:
    done = prefopt(words, place / "cache", cwd=place)
    assert done.returncode in (1, 2)
    said = done.stderr.strip().splitlines()
    complaint = [line for line in said if line.startswith("prefopt: ")]
    assert len(complaint) == 1, done.stderr
    assert "org/none" in complaint[0]
    assert said[-1].startswith("  ")  # what to do
    assert "Traceback" not in done.stderr
