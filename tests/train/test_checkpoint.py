"""A checkpoint is whole or it is not there; a damaged one is named and set aside."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from ragged import make_engine, one_step, settings

from prefopt.train import checkpoint
from prefopt.train.checkpoint import Progress


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three checkpoints of a tiny run: steps 1, 2, 3."""
    engine = make_engine(settings("one"))
    for step in (1, 2, 3):
        one_step(engine, "sft", "one")
        checkpoint.save(engine, tmp_path, Progress(step=step), keep=5)
    return tmp_path


def weights_of(path: Path) -> Path:
    return path / "state-0.safetensors"


def test_the_newest_is_taken_with_its_progress(folder: Path) -> None:
    found = checkpoint.newest(folder)
    assert found is not None
    path, progress, complaints = found
    assert (path.name, progress.step, complaints) == ("step-00000003", 3, [])


def flip_a_bit(path: Path) -> str:
    data = bytearray(weights_of(path).read_bytes())
    data[len(data) // 2] ^= 1
    weights_of(path).write_bytes(data)
    return "state-0.safetensors has changed"


def cut(path: Path) -> str:
    os.truncate(path / "state-0.safetensors", 100)
    return "state-0.safetensors has 100 bytes"


def lose_a_file(path: Path) -> str:
    (path / "random-0.safetensors").unlink()
    return "random-0.safetensors is missing"


def lose_the_manifest(path: Path) -> str:
    (path / "manifest.json").unlink()
    return "its manifest cannot be read"


@pytest.mark.parametrize("harm", [flip_a_bit, cut, lose_a_file, lose_the_manifest])
def test_a_damaged_newest_is_named_and_the_one_before_is_taken(harm, folder: Path) -> None:
    expected = harm(folder / "step-00000003")
    found = checkpoint.newest(folder)
    assert found is not None
    path, progress, complaints = found
    assert (path.name, progress.step) == ("step-00000002", 2)
    assert len(complaints) == 1
    assert expected in complaints[0]
    assert (folder / "damaged-step-00000003").is_dir()
    assert not (folder / "step-00000003").exists()


def test_an_unfinished_save_is_no_checkpoint(folder: Path) -> None:
    (folder / "step-00000003").rename(folder / ".tmp-step-00000004")
    found = checkpoint.newest(folder)
    assert found is not None
    assert found[0].name == "step-00000002"
    assert not list(folder.glob(".tmp-*"))


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "absent") is None


def test_the_last_k_and_the_best_are_kept(tmp_path: Path) -> None:
    engine = make_engine(settings("one"))
    for step in range(1, 7):
        checkpoint.save(engine, tmp_path, Progress(step=step, best_step=2), keep=2)
    assert [p.name for p in checkpoint.checkpoints(tmp_path)] == ["step-00000002", "step-00000005", "step-00000006"]


def test_loading_puts_weights_optimizer_and_random_state_back(tmp_path: Path) -> None:
    run = settings("one")
    run.optim.lr = 0.01
    engine = make_engine(run)
    engine.set_lr(0.01)
    one_step(engine, "sft", "one")
    saved = checkpoint.save(engine, tmp_path, Progress(step=1), keep=1)
    weights = {n: p.detach().clone() for n, p in engine.policy.named_parameters()}
    drawn = torch.rand(3)
    one_step(engine, "sft", "one")
    assert any(not torch.equal(p, weights[n]) for n, p in engine.policy.named_parameters())

    fresh = make_engine(run)
    checkpoint.load(fresh, saved)
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(p, weights[n]) for n, p in fresh.policy.named_parameters())
    fresh.set_lr(0.01)
    one_step(fresh, "sft", "one")
    assert all(
        torch.equal(p, q)
        for (_, p), (_, q) in zip(engine.policy.named_parameters(), fresh.policy.named_parameters(), strict=True)
    )


def test_the_manifest_lists_every_file_with_its_hash(folder: Path) -> None:
    path = folder / "step-00000001"
    manifest = json.loads((path / "manifest.json").read_text())
    files = {p.name for p in path.iterdir()} - {"manifest.json"}
    assert manifest["files"].keys() == files == {"state-0.safetensors", "random-0.safetensors"}
    assert all(len(entry["sha256"]) == 64 for entry in manifest["files"].values())
