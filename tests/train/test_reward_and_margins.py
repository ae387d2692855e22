"""Reward models are trained, saved and reloaded; they, implicit rewards and lengths become MODPO's margins."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import make_model, make_pairs, metrics, overrides, prefopt

from prefopt.data.dataset import open_prepared
from prefopt.data.encoded_set import EncodedSet


class Bed:
    """A tiny model, pairs, and what is trained on them, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder, folder / "cache"
        self.model = make_model(folder / "model")
        self.pairs = make_pairs(folder / "pairs.jsonl")

    def train(self, name: str, *more: str) -> str:
        words = ["train", *overrides(self.model, self.pairs, self.folder / name, "train.max_steps=3", *more)]
        result = prefopt(words, self.cache)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def rows(self, name: str) -> EncodedSet:
        return open_prepared(json.loads((self.folder / name / "data.json").read_text())).train


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Bed:
    return Bed(tmp_path_factory.mktemp("margins"))


@pytest.fixture(scope="module")
def reward(bed: Bed) -> Path:
    out = bed.train("reward", "loss=reward_bt", "loss.center=0.01")
    assert "a fresh process finds the same rewards to" in out
    assert "log-probabilities" not in out
    return bed.folder / "reward" / "model"


def own_reward(folder: Path, ids: list[int]) -> float:
    """transformers' own number for one sequence."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits.item()


def test_a_reward_model_is_a_sequence_classifier_with_one_label(bed: Bed, reward: Path) -> None:
    config = json.loads((reward / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    lines = [line for line in metrics(bed.folder / "reward") if "lr" in line]
    assert {"loss/reward_bt", "loss/center", "rewards/accuracy"} <= lines[0].keys()
    assert not {"nll", "logps/chosen"} & lines[0].keys()  # there is no LM head to take them from


@pytest.mark.slow
def test_adapters_of_a_reward_model_keep_their_head(bed: Bed) -> None:
    out = bed.train("reward_lora", "loss=reward_bt", "model.lora.r=4")
    assert "a fresh process finds the same" in out


@pytest.mark.slow
def test_margins_are_scored_once_and_are_what_their_models_say(bed: Bed, reward: Path) -> None:
    bed.train("helpful", "loss=dpo", "model.lora.r=4")
    adapters = bed.folder / "helpful" / "model"
    margins = f"data.margins=[{{kind: length}}, {{kind: implicit, path: {adapters}}}, {{kind: reward, path: {reward}}}]"
    modpo = ["loss=modpo", "loss.weights=[0.4,0.1,0.2,0.3]", margins]
    out = bed.train("modpo", *modpo)
    assert "(implicit margin)" in out
    assert "(reward margin)" in out
    again = bed.train("modpo_again", *modpo, "loss.beta=0.3")
    assert "scoring" not in again

    rows = bed.rows("modpo")
    columns = [np.load(file) for file in (bed.cache / "margins").glob("*.npy")]
    (of_train,) = [c for c in columns if len(c) == len(rows.response_lengths) and is_reward(c, reward, rows)]
    ids = rows[3].prompt + rows[3].responses[1]
    assert of_train[rows.response_offsets[3] + 1] == pytest.approx(own_reward(reward, ids), abs=1e-4)


def is_reward(column: np.ndarray, reward: Path, rows: EncodedSet) -> bool:
    """Whether a column is the reward model's, told by the first response."""
    return abs(column[0] - own_reward(reward, rows[0].prompt + rows[0].responses[0])) < 1e-4


def refused(bed: Bed, *more: str) -> str:
    result = prefopt(["train", *overrides(bed.model, bed.pairs, bed.folder / "refused", *more)], bed.cache)
    assert result.returncode == 2
    assert not (bed.folder / "refused").exists()
    return result.stderr


def test_another_number_of_margins_than_weights_is_refused(bed: Bed) -> None:
    said = refused(bed, "loss=modpo", "loss.weights=[0.4,0.3,0.3]", "data.margins=[{kind: length}]")
    assert "loss=modpo weighs 2 margins, data.margins names 1" in said


def test_a_margin_model_that_is_not_there_is_refused(bed: Bed) -> None:
    said = refused(bed, "loss=modpo", f"data.margins=[{{kind: reward, path: {bed.folder / 'nothing'}}}]")
    assert "data.margins.0.path: there is no folder" in said


def test_samples_of_a_reward_model_are_refused(bed: Bed) -> None:
    assert "writes no answers" in refused(bed, "loss=reward_bt", "sample.count=2")


def test_a_small_first_weight_is_told(bed: Bed) -> None:
    words = ["loss=modpo", "loss.weights=[0.05,0.95]", "data.margins=[{kind: length}]"]
    result = prefopt(["train", *overrides(bed.model, bed.pairs, bed.folder / "dry", *words, "--dry-run")], bed.cache)
    assert result.returncode == 0, result.stderr
    assert "multiplies rewards, margins and gradients by 20" in result.stderr


def test_a_causal_model_is_no_reward_margin(bed: Bed) -> None:
    words = ["loss=modpo", f"data.margins=[{{kind: reward, path: {bed.model}}}]"]
    result = prefopt(["train", *overrides(bed.model, bed.pairs, bed.folder / "causal", *words)], bed.cache)
    assert result.returncode == 2
    assert "has no trained scalar head" in result.stderr
