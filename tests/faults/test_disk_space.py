"""The room that a run needs, told before its first step: the arithmetic, sizes as they are written, and a real disk."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from disk_bed import NUM_STEPS, Material, assert_goes_on, assert_one_sentence, make_material, small_disk
from tiny import prefopt

from prefopt.train import space
from prefopt.train.space import Need, need_of, too_little

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
GIB = 2**30


@pytest.mark.parametrize(
    ("num_saves", "keep", "best", "writing", "kept"),
    [
        (16, 2, False, 3, 2),  # the two that stay and the one that is written
        (16, 2, True, 4, 3),  # and the best
        (16, 1, False, 2, 1),
        (16, 0, False, 2, 1),  # the last one always stays
        (1, 2, False, 1, 1),  # a run that saves once
        (2, 2, False, 2, 2),
        (3, 2, False, 3, 2),
        (3, 50, True, 3, 3),
    ],
)
def test_how_many_checkpoints_there_are_at_once(num_saves: int, keep: int, best: bool, writing: int, kept: int) -> None:
    found = need_of(3 * GIB, GIB, num_saves, keep, best)
    assert (found.writing, found.kept) == (writing, kept)


def test_what_a_run_takes_is_the_larger_of_two_moments() -> None:
    assert Need(checkpoint=3, model=1, writing=3, kept=2).total == 9
    assert Need(checkpoint=3, model=10, writing=3, kept=2).total == 16
    assert Need(checkpoint=3, model=1, writing=1, kept=1).total == 4


def disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _path: SimpleNamespace(free=free))


def test_the_refusal_says_what_is_needed_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = need_of(3 * GIB, GIB, num_saves=16, keep=2, keeps_best=False)
    disk(monkeypatch, 9 * GIB)
    assert too_little(need, tmp_path, keep=2) is None
    disk(monkeypatch, 9 * GIB - 1)
    refusal = too_little(need, tmp_path, keep=2)
    assert refusal is not None
    assert refusal.exit_code == 1
    assert "needs 9.0 GiB of disk: 3 checkpoints of 3.0 GiB while one is written" in refusal.message
    assert "2 and the model of 1.0 GiB at the end" in refusal.message
    assert f"{tmp_path} has 9.0 GiB free" in refusal.message
    assert refusal.hint == "train.keep_checkpoints=1, free some space, or another disk: dir=FOLDER"
    disk(monkeypatch, 5 * GIB)  # too little for two
    refusal = too_little(need, tmp_path, keep=2)
    assert refusal is not None
    assert "keep_checkpoints" not in refusal.hint


def test_checkpoints_that_are_there_already_count_as_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = need_of(2**20, 0, num_saves=16, keep=2, keeps_best=False)
    disk(monkeypatch, 2**20)
    assert too_little(need, tmp_path, keep=2) is not None
    for name in ("step-00000001", "step-00000002"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "state-0.safetensors").write_bytes(bytes(2**20))
    assert too_little(need, tmp_path, keep=2) is None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optim.name": "rmsprop"},
        {"optim.name": "adafactor"},
        {"model.dtype": "bfloat16"},
        {"model.dtype": "bfloat16", "optim.bfloat16_weights": "stochastic"},
        {"model.dtype": "bfloat16", "optim.bfloat16_weights": "nearest"},
        {"lora": True},
    ],
    ids=["adamw", "rmsprop", "adafactor", "masters", "stochastic", "nearest", "lora"],
)
def test_the_size_foretold_is_the_size_written(changes: dict[str, object], tmp_path: Path) -> None:
    from ragged import make_engine, one_step, settings

    from prefopt.train import checkpoint
    from prefopt.train.checkpoint import Progress

    run = settings("one", lora=bool(changes.get("lora")))
    for key, value in changes.items():
        if "." in key:
            group, name = key.split(".")
            setattr(getattr(run, group), name, value)
    engine = make_engine(run)
    foretold = space._checkpoint_bytes(engine)
    assert not engine.kind.inner.state
    one_step(engine, "sft", "one")
    path = checkpoint.save(engine, tmp_path, Progress(step=1), keep=1)
    written = sum(file.stat().st_size for file in path.iterdir())
    parts = len(engine.kind.state().parts)
    assert written <= foretold <= written + 3 * space._PER_PART * parts + space._PER_RANK
    assert space._checkpoint_bytes(engine) >= written  # as a run that goes on foretells it


@pytest.mark.slow
def test_a_run_that_would_not_fit_ends_before_it_scores_anything(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    material: Material = make_material(tmp_path_factory.mktemp("space"))
    with small_disk(tmp_path / "disk", 1200) as disk:
        run_dir = disk / "run"
        words = material.words(run_dir, "loss=dpo", "train.keep_checkpoints=3")
        result = prefopt(words, material.cache)
        assert_one_sentence(result, "this run needs", f"{run_dir} has", "train.keep_checkpoints=1")
        assert "scoring" not in result.stdout
        assert not (run_dir / "metrics.jsonl").exists()
        found = re.search(r"needs ([\d.]+) MiB of disk: 4 checkpoints of ([\d.]+) MiB", result.stderr)
        assert found is not None
        assert float(found[1]) > 1200 / 1024
        # What the hint says is true: the disk is large enough for that, through all sixteen steps and the model.
        fewer = [*words, "train.keep_checkpoints=1"]
        assert_goes_on(fewer, material.cache, run_dir)
        assert [path.name for path in (run_dir / "checkpoints").iterdir()] == [f"step-{NUM_STEPS:08d}"]


@pytest.mark.slow
def test_all_ranks_of_a_run_that_would_not_fit_end_alike(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    material: Material = make_material(tmp_path_factory.mktemp("space"))
    with small_disk(tmp_path / "disk", 1000) as disk:
        words = material.words(disk / "run", "launch.num_processes=2", "deepspeed=zero2", "train.keep_checkpoints=3")
        result = prefopt(words, material.cache)
        assert_one_sentence(result, "this run needs", "4 checkpoints of")
        assert result.stderr.count("this run needs") == 1
