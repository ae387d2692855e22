"""Every packaged recipe on a tiny model of its family: what it would do, and two steps of it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from recipe_bed import RECIPES, family_of, make_stand_in, stand_in_words
from tiny import metrics, prefopt

from prefopt.cli import main
from prefopt.config import compose

OFTEN = ["simpo_gemma2_it", "sppo_mistral_instruct", "tdpo_pythia_hh"]
"""Trained in every run of the tests: a soft-capped model, rankings under RMSprop, a live reference on GPT-NeoX."""

OF_A_METHOD = set({compose([f"recipe={recipe}"]).loss["name"]: recipe for recipe in RECIPES}.values())
LONG = pytest.mark.long
FAMILIES = sorted({family_of(recipe) for recipe in RECIPES})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where stand-ins and rows lie, and a cache."""
    return tmp_path_factory.mktemp("recipes")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stand_in_is_of_its_family(family: str, place: Path) -> None:
    config = json.loads((make_stand_in(place / family, family) / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == family


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", [name if name in OF_A_METHOD else pytest.param(name, marks=LONG) for name in RECIPES]
)
def test_a_recipe_dry_runs_and_writes_nothing(
    recipe: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = stand_in_words(recipe, place)
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "2 steps" in said
    assert f"recipe={recipe}" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [name if name in OFTEN else pytest.param(name, marks=LONG) for name in RECIPES])
def test_a_recipe_trains_two_steps(recipe: str, place: Path, tmp_path: Path) -> None:
    done = prefopt(["train", *stand_in_words(recipe, place), f"dir={tmp_path / 'run'}"], place / "cache")
    assert done.returncode == 0, done.stderr
    losses = [line["loss"] for line in metrics(tmp_path / "run") if "loss" in line]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    assert (tmp_path / "run" / "model").is_dir()
