"""Runs that start at once do not trample on each other: one folder, one cache, and one of them killed in the middle."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tiny import ROOT, make_model, make_pairs, metrics, overrides, prefopt, start

from prefopt.data.artefact import open_artefact
from prefopt.disk import write_whole
from prefopt.lock import locked
from prefopt.run_folder import RUN

WAITS = """
import os, pathlib, time

made = pathlib.Path.mkdir

def mkdir(path, *arguments, **named):
    made(path, *arguments, **named)
    if path.name == "run":
        while not os.path.exists(os.environ["GO"]):
            time.sleep(0.01)

pathlib.Path.mkdir = mkdir
"""
"""sitecustomize.py: whoever has made a folder named run waits for a file before it goes on."""


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("two")
    return make_model(folder / "model"), make_pairs(folder / "pairs.jsonl")


def wait_until(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 100
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


WAITING = b"waiting for another run that is tokenising"


def read_now(process: subprocess.Popen[str]) -> bytes:
    """What a process has written to stderr and nobody has read."""
    assert process.stderr is not None
    ready, _, _ = select.select([process.stderr], [], [], 0)
    return os.read(process.stderr.fileno(), 65536) if ready else b""


@pytest.mark.slow
def test_of_two_starts_in_one_new_folder_one_trains_and_the_other_says_who(
    material: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ["train", *overrides(*material, tmp_path / "run", "train.epochs=8")]
    processes = [start(words, tmp_path / "cache") for _ in range(2)]
    ended = [(*process.communicate(timeout=200), process.returncode) for process in processes]
    assert sorted(code for _, _, code in ended) == [0, 2], ended
    (refused,) = [err for _, err, code in ended if code == 2]
    assert "is in use by process" in refused
    assert "Traceback" not in refused
    assert [line["step"] for line in metrics(tmp_path / "run") if "lr" in line] == list(range(1, 65))
    starts = json.loads((tmp_path / "run" / "manifest.json").read_text())["starts"]
    assert len(starts) == 1


@pytest.mark.slow
@pytest.mark.parametrize("is_done", [False, True], ids=["working", "done"])
def test_a_start_that_made_the_folder_leaves_it_to_the_one_that_was_quicker(
    is_done: bool, material: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making the folder and locking it another start may lock it, and even come to its end."""
    run_dir, go = tmp_path / "run", tmp_path / "go"
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(WAITS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'path'}{os.pathsep}{ROOT}")
    monkeypatch.setenv("GO", str(go))
    words = ["train", *overrides(*material, run_dir, "train.max_steps=2")]
    slow = start(words, tmp_path / "cache")
    wait_until(run_dir, slow)
    if is_done:
        assert prefopt(words, tmp_path / "cache").returncode == 0
        files = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
        go.touch()
        out, err = slow.communicate(timeout=100)
        assert slow.returncode == 0, err
        assert "is done" in out
        assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == files
        return
    with locked(run_dir):
        write_whole(run_dir / "data.json", "{}")
        write_whole(run_dir / RUN, "name: theirs\n")
        go.touch()
        _, err = slow.communicate(timeout=100)
        assert slow.returncode == 2
        assert f"is in use by process {os.getpid()}" in err
        assert sorted(path.name for path in run_dir.iterdir()) == ["data.json", "lock.json", RUN]


@pytest.mark.slow
def test_a_start_that_comes_to_nothing_takes_back_what_it_wrote(material: tuple[Path, Path], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "manifest.json").mkdir()  # cannot be replaced by a file
    result = prefopt(["train", *overrides(*material, run_dir)], tmp_path / "cache")
    assert result.returncode == 1, result.stderr
    assert "manifest.json cannot be written" in result.stderr
    assert [path.name for path in run_dir.iterdir()] == ["manifest.json"]


@pytest.mark.slow
def test_of_two_that_tokenise_the_same_one_is_killed_and_the_other_takes_over(
    material: tuple[Path, Path], tmp_path: Path
) -> None:
    model, cache = material[0], tmp_path / "cache"
    pairs = make_pairs(tmp_path / "many.jsonl", count=15_000)
    more = ["train.max_steps=1", "train.eval_every=never", "data.num_workers=1"]
    first, second = (start(["train", *overrides(model, pairs, tmp_path / name, *more)], cache) for name in ("a", "b"))
    try:
        deadline = time.monotonic() + 100
        while not (drafts := list(cache.glob("encoded/.*"))):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert len(drafts) == 1
        said = {first: b"", second: b""}
        while not (waiting := [process for process, words in said.items() if WAITING in words]):
            assert time.monotonic() < deadline
            for process in said:
                said[process] += read_now(process)
            time.sleep(0.01)
        (survivor,) = waiting
        working = first if survivor is second else second
        assert list(cache.glob("encoded/.*"))  # still in the middle
        os.killpg(working.pid, signal.SIGKILL)
        working.wait()
        out, err = survivor.communicate(timeout=300)
        assert survivor.returncode == 0, err
        assert "15000 of 15000 rows" in out
    finally:
        for process in (first, second):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    assert not list(cache.glob("encoded/.*"))  # nor a draft of the dead one
    (kept,) = cache.glob("encoded/*")
    assert open_artefact(kept).facts["kept"] == 15_000
