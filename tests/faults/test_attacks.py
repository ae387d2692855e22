"""A short campaign of what `make test-faults` does at length; other seeds each time, told where something is lost."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from attacks import Bed
from tiny import make_model, make_pairs


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Bed:
    folder = tmp_path_factory.mktemp("attacks")
    return Bed(make_model(folder / "model"), make_pairs(folder / "pairs.jsonl"), folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("kill", "one process"),
        pytest.param("signal", "two ranks, DDP", marks=pytest.mark.long),
        pytest.param("kill", "two ranks, DDP", marks=pytest.mark.long),
        pytest.param("save", "one process, LoRA with dropout", marks=pytest.mark.long),
        pytest.param("save", "two ranks, ZeRO-3", marks=pytest.mark.long),
        pytest.param("signal", "one process", marks=pytest.mark.long),
        pytest.param("signal", "two ranks, ZeRO-3", marks=pytest.mark.long),
    ],
)
def test_harmed_runs_end_as_the_straight_run(kind: str, shape: str, bed: Bed) -> None:
    seed = random.SystemRandom().randrange(10**6)
    bed.prepare(shape)
    outcome = getattr(bed, kind)(shape, seed, count=3)
    assert not outcome.complaints, (seed, outcome.story)
