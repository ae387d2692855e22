"""What `prefopt train` made of real rows ranks rows that it never saw."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest
from score_bed import place, plain, score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import prefopt

HELD_OUT = 200
CHANCE = 0.5
MARGIN = 0.3
"""Eight standard errors of a coin's share over 180 rows; the three reach 0.47 to 0.49 above chance in two epochs."""


@pytest.fixture(scope="module")
def rows(shared: Path) -> list[dict]:
    """Happy stories: a prompt, six samples, and happy words less sad ones for each."""
    file = shared / "data" / "stories_happy" / "train.jsonl.gz"
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")
    found = [json.loads(line) for line in lines if line]
    return [{**row, "responses": [f" {response}" for response in row["responses"]]} for row in found]


def train(folder: Path, rows: list[dict], shared: Path, *words: str) -> Path:
    """The model that half a minute of one core makes of the rows that are not held out."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[HELD_OUT:]), encoding="utf-8")
    common = [
        f"model.path={shared / 'models' / 'stories260K'}",
        f"data.train=[{{path: {file}}}]",
        "data.max_length=300",
        "optim.lr=1e-3",
        "train.batch_size=32",
        "train.save_every=never",
        "launch.device=cpu",
        f"dir={folder / 'run'}",
    ]
    result = prefopt(["train", *common, *words], folder / "cache")
    assert result.returncode == 0, result.stderr
    return folder / "run" / "model"


def share_in_order(rows: list[dict], scores: list[tuple[float | None, ...]]) -> float:
    """The share of rows whose best response scores above their worst; rows without a gap are left aside."""
    right = []
    for row, found in zip(rows, scores, strict=True):
        best, worst = (row["scores"].index(of(row["scores"])) for of in (max, min))
        if row["scores"][best] > row["scores"][worst]:
            right.append(found[best] > found[worst])
    assert len(right) > 180
    return sum(right) / len(right)


def scores_of(stage: dict, model: Path, rows: list[dict]) -> list[tuple[float | None, ...]]:
    examples = [plain(row["prompt"], *row["responses"], name=f"h:{n}") for n, row in enumerate(rows[:HELD_OUT])]
    return [judged.scores for judged in score(stage, place(reward=str(model)), *examples)]


def extremes(row: dict) -> dict:
    """A row with its best and its worst response, in the order of the file."""
    places = sorted(row["scores"].index(of(row["scores"])) for of in (max, min))
    return {**row, **{key: [row[key][place] for place in places] for key in ("responses", "scores")}}


@pytest.mark.slow
@pytest.mark.long
def test_a_trained_reward_model_ranks_rows_it_never_saw(rows: list[dict], shared: Path, tmp_path: Path) -> None:
    model = train(tmp_path, rows, shared, "loss=reward_bt", "train.epochs=1")
    share = share_in_order(rows[:HELD_OUT], scores_of({"name": "reward"}, model, rows))
    assert share > CHANCE + MARGIN


@pytest.mark.slow
@pytest.mark.long
def test_a_trained_pointwise_ranker_ranks_rows_it_never_saw(rows: list[dict], shared: Path, tmp_path: Path) -> None:
    model = train(tmp_path, rows, shared, "loss=rank_pointwise", "train.epochs=1")
    share = share_in_order(rows[:HELD_OUT], scores_of({"name": "good_bad"}, model, rows))
    assert share > CHANCE + MARGIN


@pytest.mark.slow
@pytest.mark.long
def test_a_trained_pairwise_ranker_ranks_rows_it_never_saw(rows: list[dict], shared: Path, tmp_path: Path) -> None:
    model = train(tmp_path, rows, shared, "loss=rank_pairwise", "train.epochs=1")
    twos = [extremes(row) for row in rows[:HELD_OUT]]  # thirty comparisons a row would take minutes
    share = share_in_order(twos, scores_of({"name": "a_vs_b"}, model, twos))
    assert share > CHANCE + MARGIN
