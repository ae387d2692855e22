"""Numbers that are not finite end a run by the names of rows and tensors, or are skipped and counted: real commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from poison import (
    GRADIENT,
    LOGIT,
    assert_finite,
    checkpoint_files,
    make_poisoned_model,
    make_poisoned_pairs,
    strict,
    words_for,
)
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import kill_at_step, make_pairs, prefopt

from prefopt.train.timings import TIMINGS

NUM_STEPS = 16
ROW = 4
SKIP = "train.on_nonfinite=skip_step"


class Material:
    """A model for each kind of harm; pairs of which one is harmed, and pairs of which none is."""

    def __init__(self, folder: Path) -> None:
        self.models = {size: make_poisoned_model(folder / f"model-{size:g}", size) for size in (LOGIT, GRADIENT)}
        self.bad = make_poisoned_pairs(folder / "bad.jsonl", ROW)
        self.good = make_pairs(folder / "good.jsonl", count=8, seed=1)
        self.cache = folder / "cache"

    def words(self, run_dir: Path, *more: str, size: float = LOGIT) -> list[str]:
        return words_for(self.models[size], self.bad, self.good, run_dir, *more)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material(tmp_path_factory.mktemp("nonfinite"))


def lines(run_dir: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Strict JSON, timings left out."""
    text = (run_dir / name).read_text(encoding="utf-8")
    return [{k: v for k, v in strict(line).items() if k not in TIMINGS} for line in text.splitlines()]


def complaint(result: Any, exit_code: int = 1) -> str:
    assert result.returncode == exit_code, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    said = result.stderr[result.stderr.index("prefopt: ") :].strip()
    assert len(said.splitlines()) <= 3, said
    return said


def check_stopped(run_dir: Path, row: str, tensor: str) -> dict[str, Any]:
    """nonfinite.json names the row; what was saved before the step is whole and finite; no model."""
    found = strict((run_dir / "nonfinite.json").read_text(encoding="utf-8"))
    assert any(name.endswith(row) for name in found["rows"])
    assert tensor in found["tensors"]
    saved = sorted(p.name for p in (run_dir / "checkpoints").iterdir())
    assert saved == [f"step-{step:08d}" for step in range(1, found["step"])]
    assert_finite(run_dir / "checkpoints")
    assert not (run_dir / "model").exists()
    assert not (run_dir / "unverified-model").exists()
    assert not (run_dir / "result.json").exists()
    assert max(line["step"] for line in lines(run_dir)) == found["step"] - 1
    return found


@pytest.mark.slow
def test_an_infinite_logit_names_its_row_alone(material: Material, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    words = material.words(run_dir)
    said = complaint(prefopt(words, material.cache))
    found = check_stopped(run_dir, f"bad.jsonl:{ROW}", "logps")
    assert found["where"] == f"step {found['step']}"
    assert found["tensors"] == {"logps": found["rows"], "simpo": found["rows"]}
    assert len(found["rows"]) == 1
    assert f"step {found['step']}: logps and simpo not finite in {found['rows'][0]}" in said
    before = checkpoint_files(run_dir)
    again = complaint(prefopt(words, material.cache))  # goes on from the newest checkpoint, to the same row
    assert again == said
    assert checkpoint_files(run_dir) == before


@pytest.mark.slow
def test_a_gradient_that_overflows_names_the_rows_of_its_step(material: Material, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    said = complaint(prefopt(material.words(run_dir, size=GRADIENT), material.cache))
    found = check_stopped(run_dir, f"bad.jsonl:{ROW}", "gradient")
    assert f"step {found['step']}: the gradient is not finite (its norm is " in said
    assert f"bad.jsonl:{ROW}" in said
    assert len(found["rows"]) == 4
    assert set(found["tensors"]) == {"gradient"}


@pytest.mark.slow
@pytest.mark.long
def test_an_evaluation_names_its_row(material: Material, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    words = words_for(material.models[LOGIT], material.good, material.bad, run_dir)
    said = complaint(prefopt(words, material.cache))
    assert "evaluation of heldout: logps and simpo not finite in " in said
    assert f"bad.jsonl:{ROW}" in said
    found = strict((run_dir / "nonfinite.json").read_text())
    assert (found["step"], found["where"], len(found["rows"])) == (0, "evaluation of heldout", 1)
    assert not (run_dir / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("size", [LOGIT, GRADIENT], ids=["logit", "gradient"])
def test_a_step_that_is_skipped_changes_nothing_and_is_counted(size: float, material: Material, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    result = prefopt(material.words(run_dir, SKIP, size=size), material.cache)
    assert result.returncode == 0, result.stderr
    skipped = lines(run_dir, "nonfinite.jsonl")
    assert len(skipped) == 2  # two epochs
    for one in skipped:
        assert any(row.endswith(f"bad.jsonl:{ROW}") for row in one["rows"])
        assert set(one["tensors"]) == ({"logps", "simpo"} if size == LOGIT else {"gradient"})
    trained = [line for line in lines(run_dir) if "lr" in line]
    assert [line["step"] for line in trained] == list(range(1, NUM_STEPS + 1))
    steps = [one["step"] for one in skipped]
    assert [line["step"] for line in trained if line.get("skipped") == 1] == steps
    for line in trained:
        assert ("grad_norm" in line) == (line["step"] not in steps)
    assert strict((run_dir / "result.json").read_text())["skipped"] == 2
    for number, step in enumerate(steps, 1):
        assert f"skipped, {number} of at most 5 steps: step {step}: " in result.stdout
    assert result.stdout.count("skipped, ") == 2
    assert_finite(run_dir)
    for step in steps:
        at = [load_file(run_dir / "checkpoints" / f"step-{s:08d}" / "state-0.safetensors") for s in (step - 1, step)]
        assert all(np.array_equal(at[0][name].numpy(), at[1][name].numpy()) for name in at[0])
    assert not (run_dir / "nonfinite.json").exists()


@pytest.mark.slow
def test_one_step_more_than_the_limit_stops(material: Material, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    said = complaint(prefopt(material.words(run_dir, SKIP, "train.max_skipped_steps=1"), material.cache))
    found = check_stopped(run_dir, f"bad.jsonl:{ROW}", "logps")
    assert f"step {found['step']}: logps and simpo not finite in " in said
    assert "train.max_skipped_steps=1 were skipped before" in said
    (skipped,) = lines(run_dir, "nonfinite.jsonl")
    assert skipped["step"] < found["step"]
    # The limit is no part of what the run is: a higher one lets it end.
    result = prefopt(material.words(run_dir, SKIP, "train.max_skipped_steps=2"), material.cache)
    assert result.returncode == 0, result.stderr
    assert strict((run_dir / "result.json").read_text())["skipped"] == 2


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("first", [SKIP, "train.on_nonfinite=stop"], ids=["killed", "stopped"])
def test_a_run_that_went_on_is_the_straight_run(first: str, material: Material, tmp_path: Path) -> None:
    straight, other = tmp_path / "straight", tmp_path / "other"
    more = [SKIP, "train.save_every=3"]
    assert prefopt(material.words(straight, *more), material.cache).returncode == 0
    steps = [one["step"] for one in lines(straight, "nonfinite.jsonl")]
    words = material.words(other, *more)
    if first == SKIP:
        kill_at_step(words, material.cache, other, steps[0] + 1)
    else:
        complaint(prefopt([*words, first], material.cache))
    result = prefopt(words, material.cache)
    assert result.returncode == 0, result.stderr
    assert lines(other) == lines(straight)
    assert lines(other, "nonfinite.jsonl") == lines(straight, "nonfinite.jsonl")
    last = Path("checkpoints") / f"step-{NUM_STEPS:08d}" / "state-0.safetensors"
    assert (other / last).read_bytes() == (straight / last).read_bytes()
    model = Path("model") / "model.safetensors"
    assert (other / model).read_bytes() == (straight / model).read_bytes()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("engine", ["fsdp=none", "fsdp=full_shard"])
def test_two_ranks_skip_the_same_steps(engine: str, material: Material, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert prefopt(material.words(one, SKIP, "train.save_every=never"), material.cache).returncode == 0
    more = [SKIP, "train.save_every=never", "launch.num_processes=2", engine]
    result = prefopt(material.words(two, *more), material.cache)
    assert result.returncode == 0, result.stderr
    assert lines(two, "nonfinite.jsonl") == lines(one, "nonfinite.jsonl")
    for got, expected in zip(lines(two), lines(one), strict=True):
        assert got.keys() == expected.keys()
        assert got["step"] == expected["step"]
        for name in {"loss", "eval/heldout/loss"} & got.keys():  # a skipped step has none
            assert got[name] == pytest.approx(expected[name], rel=1e-4)
    said = complaint(prefopt(material.words(tmp_path / "stop", "launch.num_processes=2", engine), material.cache))
    assert "logps and simpo not finite in " in said
    assert f"bad.jsonl:{ROW}" in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [np.nan, pytest.param(np.inf, marks=pytest.mark.long)])
def test_a_kept_reference_that_is_not_finite_is_scored_anew(number: float, material: Material, tmp_path: Path) -> None:
    model, cache = material.models[LOGIT], tmp_path / "cache"

    def run(name: str) -> str:
        words = words_for(model, material.good, material.good, tmp_path / name, "loss=dpo", "train.max_steps=2")
        result = prefopt(words, cache)
        assert result.returncode == 0, result.stderr
        return result.stdout

    run("first")
    files = list((cache / "reference").glob("*.npy"))
    whole = {file: file.read_bytes() for file in files}
    for file in files:
        column = np.load(file)
        column[5] = number
        np.save(file, column)
    said = run("second")
    for file in files:
        assert f"{file}: holds numbers that are not finite; it is scored anew" in said
        assert file.read_bytes() == whole[file]
    assert lines(tmp_path / "second") == lines(tmp_path / "first")


@pytest.mark.slow
@pytest.mark.long
def test_a_reference_that_the_model_cannot_give_names_its_row(material: Material, tmp_path: Path) -> None:
    said = complaint(prefopt(material.words(tmp_path / "run", "loss=dpo", SKIP), tmp_path / "cache"))
    assert f"bad.jsonl:{ROW} is not finite" in said
    assert not list((tmp_path / "cache" / "reference").glob("*.npy"))
