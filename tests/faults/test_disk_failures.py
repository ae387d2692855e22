"""Disks that fill up, fail or vanish under a run: one sentence, whole checkpoints, and the same command goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from errno import EIO, ENOSPC, ESTALE
from pathlib import Path

import pytest
from disk_bed import (
    Material,
    assert_goes_on,
    assert_one_sentence,
    checkpoints,
    during,
    failing,
    fill,
    make_material,
    remount,
    small_disk,
)
from tiny import kill_at_step, prefopt

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("disk"))


@pytest.mark.long
def test_a_model_that_the_disk_does_not_take(material: Material, tmp_path: Path) -> None:
    run_dir, trigger = tmp_path / "run", tmp_path / "trigger"
    trigger.touch()
    words = material.words(run_dir, "train.save_every=never")
    for file in (".tmp", "tokenizer.json", "README.md"):  # safetensors writes beside the file and renames
        with failing(material, trigger, f"unverified-model/{file}", "open,write", ENOSPC):
            result = prefopt(words, material.cache)
        assert_one_sentence(result, "the model could not be saved in", "No space left on device", "free some space")
        assert f"{json.loads((run_dir / 'exit.json').read_text())['exit_code']}" == "1"
        kept = checkpoints(run_dir)
        assert {Path(name).parts[0] for name in kept} == {"step-00000016"}
        assert not (run_dir / "unverified-model").exists()
        assert not (run_dir / "model").exists()
        assert not (run_dir / "result.json").exists()
    assert "resuming after step 16 of 16" in assert_goes_on(words, material.cache, run_dir)
    assert checkpoints(run_dir) == kept


@pytest.mark.long
@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_disk_that_fails_while_a_checkpoint_is_synced(num_processes: int, material: Material, tmp_path: Path) -> None:
    run_dir, trigger = tmp_path / "run", tmp_path / "trigger"
    words = material.words(run_dir, f"launch.num_processes={num_processes}", "train.keep_checkpoints=20")
    kept: dict[str, bytes] = {}

    def fail() -> None:
        kept.update(checkpoints(run_dir))
        trigger.touch()

    with failing(material, trigger, "/checkpoints/", "fsync", EIO):
        result = during(words, material.cache, run_dir, 4, fail)
    assert_one_sentence(result, "could not be written (Input/output error", "once the disk can be written again")
    left = checkpoints(run_dir)
    assert kept
    assert {name: left[name] for name in kept} == kept
    assert not list((run_dir / "checkpoints").glob(".tmp-*"))
    newest = max(int(Path(name).parts[0].removeprefix("step-")) for name in left)
    assert f"resuming after step {newest} of" in assert_goes_on(words, material.cache, run_dir)


@pytest.mark.parametrize(
    ("path", "calls", "errno", "said"),
    [
        pytest.param(
            *("metrics.jsonl", "write", ENOSPC),
            ["metrics.jsonl cannot be written: No space left on device", "free some"],
            marks=pytest.mark.long,
        ),
        pytest.param(
            *("metrics.jsonl", "fsync", EIO, ["metrics.jsonl cannot be written: Input/output error"]),
            marks=pytest.mark.long,
        ),
        ("", "open,write,fsync", ESTALE, ["Stale file handle"]),  # the whole run folder, exit.json and logs too
        pytest.param("", "write", ENOSPC, ["No space left on device"], marks=pytest.mark.long),
    ],
    ids=["metrics_full", "metrics_sync", "all_stale", "all_full"],
)
def test_files_of_a_run_that_cannot_be_written_any_more(
    path: str, calls: str, errno: int, said: list[str], material: Material, tmp_path: Path
) -> None:
    run_dir, trigger = tmp_path / "run", tmp_path / "trigger"
    words = material.words(run_dir)
    with failing(material, trigger, str(run_dir / path) if path else str(run_dir), calls, errno):
        result = during(words, material.cache, run_dir, 4, trigger.touch)
    assert_one_sentence(result, *said)
    assert "resuming after step" in assert_goes_on(words, material.cache, run_dir)


@pytest.mark.long
def test_a_disk_that_somebody_else_fills(material: Material, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16 * 1024) as disk:
        run_dir, ballast = disk / "run", disk / "ballast"
        words = material.words(run_dir)
        result = during(words, material.cache, run_dir, 4, lambda: fill(disk))
        assert_one_sentence(result, "No space left on device", "free some space")
        left = checkpoints(run_dir)
        assert left
        fill(disk)
        for command in (words, material.words(disk / "another")):
            assert_one_sentence(prefopt(command, material.cache), "No space left on device", "free some space")
        assert checkpoints(run_dir) == left
        assert not (disk / "another").exists()
        ballast.unlink()
        assert "resuming after step" in assert_goes_on(words, material.cache, run_dir)


@pytest.mark.long
def test_a_run_folder_that_became_read_only(material: Material, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16 * 1024) as disk:
        run_dir = disk / "run"
        words = material.words(run_dir)
        kill_at_step(words, material.cache, run_dir, 5)
        before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
        remount(disk, "ro")
        result = prefopt(words, material.cache)
        assert_one_sentence(result, "cannot be written: Read-only file system")
        assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before
        remount(disk, "rw")
        assert "resuming after step" in assert_goes_on(words, material.cache, run_dir)


@pytest.mark.long
def test_a_run_folder_that_is_gone_is_not_made_again(material: Material, tmp_path: Path) -> None:
    run_dir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    words = material.words(run_dir)
    result = during(words, material.cache, run_dir, 4, lambda: run_dir.rename(elsewhere))
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert f"{run_dir}" in result.stderr
    assert "is gone" in result.stderr or "somebody deleted it" in result.stderr
    assert not run_dir.exists()
    elsewhere.rename(run_dir)
    assert "resuming after step" in assert_goes_on(words, material.cache, run_dir)


def test_a_cache_that_is_deleted_under_a_run_is_not_missed(material: Material, tmp_path: Path) -> None:
    run_dir, cache = tmp_path / "run", tmp_path / "cache"
    result = during(material.words(run_dir, "loss=dpo"), cache, run_dir, 3, lambda: shutil.rmtree(cache))
    assert result.returncode == 0, result.stderr
    assert (run_dir / "result.json").exists()


@pytest.mark.long
@pytest.mark.parametrize("num_processes", [1, 2])
def test_encoded_data_that_are_cut_short_under_a_run(num_processes: int, material: Material, tmp_path: Path) -> None:
    run_dir, cache = tmp_path / "run", tmp_path / "cache"
    words = material.words(run_dir, f"launch.num_processes={num_processes}")

    def cut() -> None:
        (rows,) = cache.glob("encoded/*/rows.arrow")
        os.truncate(rows, 0)

    result = during(words, cache, run_dir, 3, cut)
    code = 1 if num_processes > 1 else 128 + signal.SIGBUS
    said = ("was ended by SIGBUS: a file that it reads through memory", "was cut short")
    assert_one_sentence(result, *said, exit_code=code)
    assert "resuming after step" in assert_goes_on(words, cache, run_dir)


@pytest.mark.long
def test_a_checkpoint_that_the_disk_does_not_give_back_is_no_damaged_one(material: Material, tmp_path: Path) -> None:
    run_dir, trigger = tmp_path / "run", tmp_path / "trigger"
    words = material.words(run_dir)
    kill_at_step(words, material.cache, run_dir, 5)
    before = checkpoints(run_dir)
    trigger.touch()
    with failing(material, trigger, "/checkpoints/step-", "open", ESTALE):
        result = prefopt(words, material.cache)
    assert_one_sentence(result, "cannot be read: Stale file handle", "the same command goes on")
    assert checkpoints(run_dir) == before
    assert not list((run_dir / "checkpoints").glob("damaged-*"))
    assert_goes_on(words, material.cache, run_dir)
