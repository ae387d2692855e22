"""The model card: figures, data, versions and the command that makes the model again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefopt.settings import DataSettings, ModelSettings, RunSettings, SourceSettings
from prefopt.train.card import model_card

START: dict[str, Any] = {
    "command": ["prefopt", "train", "loss=dpo", "data.train=[{path: my pairs.jsonl}]"],
    "working_directory": "/home/somebody",
    "world": {"device": "cuda", "num_processes": 8, "num_nodes": 1, "engine": "ZeRO-3"},
    "python": "3.11.7",
    "platform": "Linux",
    "packages": {"prefopt": "0.1.0", "torch": "2.6.0"},
    "git": {"commit": "abc", "dirty": True},
}
REPORT = {
    "fingerprint": "f" * 64,
    "sets": {"train": {"rows": 10, "pairs": 10, "tokens": 400, "fingerprint": "b" * 64}},
    "sources": [
        {
            "set": "train",
            "path": "my|pairs.jsonl",
            "read": 12,
            "kept": 10,
            "dropped": {"too long": {"count": 2, "rows": [3, 7]}},
        }
    ],
}


def card(folder: Path, *starts: dict[str, Any]) -> str:
    if starts:
        (folder / "manifest.json").write_text(json.dumps({"starts": starts}))
        (folder / "data_report.json").write_text(json.dumps(REPORT))
    run = RunSettings(
        name="mine",
        model=ModelSettings(path="base"),
        data=DataSettings(train=[SourceSettings(path="my|pairs.jsonl")]),
        loss={"name": "dpo", "beta": 0.1},
    )
    return model_card(run, folder, {"eval/heldout/loss": 0.7}, {"eval/heldout/loss": 0.5}, 94)


def test_the_card_has_figures_rows_digests_versions_and_the_command_to_repeat(tmp_path: Path) -> None:
    text = card(tmp_path, START)
    for line in (
        "| eval/heldout/loss | 0.7000 | 0.5000 |",
        "| train | `my\\|pairs.jsonl` | 12 | 10 | 2 too long |",
        f"| train | 10 | 10 | 400 | `{'b' * 16}` |",
        f"prefopt train --repeat {tmp_path}",
        "prefopt train loss=dpo 'data.train=[{path: my pairs.jsonl}]'",
        "- prefopt 0.1.0, torch 2.6.0",
        "- 8 processes on cuda (ZeRO-3)",
        "- started in a git checkout at abc, with changes of its own",
    ):
        assert line in text.split("\n"), line
    assert text.startswith("---\nbase_model: base\n")


def test_a_run_that_was_changed_on_the_way_has_no_command(tmp_path: Path) -> None:
    text = card(tmp_path, START, {**START, "changes": [{"key": "optim.lr", "old": 0.1, "new": 1, "after_step": 8}]})
    assert "No command repeats this run: it went on with another optim.lr" in text
    assert "- up to step 8 `optim.lr` was 0.1" in text
    assert "--repeat" not in text
    assert "the folder alone repeats the run" not in text


def test_the_head_names_every_method_that_trained_the_model(tmp_path: Path) -> None:
    change = {"key": "loss.name", "old": "simpo", "new": "dpo", "after_step": 10}
    text = card(tmp_path, START, {**START, "changes": [change]})
    assert ": simpo up to step 10, then dpo (beta=0.1) on my|pairs.jsonl." in text
    assert "tags: [prefopt, simpo, dpo]" in text


def test_without_a_record_the_card_says_so(tmp_path: Path) -> None:
    assert card(tmp_path).count("Nothing is recorded.") == 3
