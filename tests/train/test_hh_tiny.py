"""Real preference data on a real pretrained model: the methods learn something that holds on rows they never saw."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import ROOT, prefopt

pytestmark = [pytest.mark.slow, pytest.mark.long]

CHANCE = 0.5
METHODS = {
    "dpo": (["loss=dpo"], CHANCE),  # at step 0 every margin is exactly 0, which is no evidence
    "simpo": (["loss=simpo", "optim.lr=3e-4"], None),
    "orpo": (["loss=orpo", "loss.lam=1", "optim.lr=5e-4"], None),
}


@pytest.mark.parametrize("method", METHODS)
def test_held_out_accuracy_and_loss_are_better_than_at_step_0(method: str, shared: Path, tmp_path: Path) -> None:
    settings, at_start = METHODS[method]
    words = ["train", "--config-dir", "tests/recipes", "recipe=hh_tiny", f"dir={tmp_path / 'run'}", *settings]
    result = prefopt(words, tmp_path / "cache", timeout=500)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    before, after = found["before"], found["after"]
    figures = {k: (before[f"eval/heldout/{k}"], after[f"eval/heldout/{k}"]) for k in ("loss", "rewards/accuracy")}
    print(method, figures)
    assert figures["loss"][1] < figures["loss"][0]
    assert figures["rewards/accuracy"][1] > (at_start or figures["rewards/accuracy"][0])


def test_data_names_every_row_that_is_left_out_of_the_real_file(shared: Path, tmp_path: Path) -> None:
    words = ["data", "--config-dir", "tests/recipes", "recipe=hh_tiny", "data.train.0.limit=null"]
    result = prefopt(words, tmp_path / "cache")
    assert result.returncode == 0, result.stderr
    run_words = [
        "train",
        "--config-dir",
        "tests/recipes",
        "recipe=hh_tiny",
        "data.train.0.limit=null",
        "train.max_steps=1",
    ]
    run_dir = tmp_path / "run"
    assert prefopt([*run_words, f"dir={run_dir}", "loss=simpo"], tmp_path / "cache").returncode == 0
    report = json.loads((run_dir / "data_report.json").read_text())
    left_out = [json.loads(line) for line in (run_dir / "left_out.jsonl").read_text().splitlines()]
    (source,) = report["sources"] if isinstance(report["sources"], list) else report["sources"].values()
    assert source["read"] == 1844
    assert source["kept"] + len(left_out) == 1844
    assert len(left_out) > 50
    for row in left_out:
        assert row["id"] in result.stdout
        assert row["reason"]
    assert (ROOT / "tests" / "recipes").is_dir()
