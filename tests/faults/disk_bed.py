"""Disks that fill up, fail, vanish or may not be written: a small tmpfs, and a shim under the C library's calls."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import last_step, make_model, make_pairs, metrics, overrides, prefopt, start

NUM_STEPS = 16
FORGET = ("FAULT_TRIGGER", "FAULT_PATH", "FAULT_CALLS", "FAULT_ERRNO", "LD_PRELOAD")


@dataclass(frozen=True)
class Material:
    """A tiny model, pairs and a cache, and the shim as a shared object; None where there is no C compiler."""

    folder: Path
    model: Path
    pairs: Path
    cache: Path
    shim: Path | None

    def words(self, run_dir: Path, *more: str) -> list[str]:
        """The command of a run of 16 steps that saves after each."""
        return ["train", *overrides(self.model, self.pairs, run_dir, "train.save_every=1", *more)]


def make_material(folder: Path) -> Material:
    """Everything that runs on failing disks need."""
    shim = folder / "shim.so" if shutil.which("gcc") else None
    if shim is not None:
        source = Path(__file__).with_name("shim.c")
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", str(shim), str(source), "-ldl"], check=True)
    return Material(folder, make_model(folder / "model"), make_pairs(folder / "pairs.jsonl"), folder / "cache", shim)


@contextmanager
def failing(material: Material, trigger: Path, path: str, calls: str, errno: int) -> Iterator[None]:
    """Commands that start meanwhile fail in `calls` on paths with `path` in them, once the trigger file is there."""
    if material.shim is None:
        pytest.skip("there is no gcc to build the shim with")
    said = (str(trigger), path, calls, str(errno), str(material.shim))
    os.environ.update(zip(FORGET, said))
    try:
        yield
    finally:
        for name in FORGET:
            del os.environ[name]


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Path]:
    """A tmpfs of so many KiB; the test is skipped where none can be mounted."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(disk: Path, option: str) -> None:
    """The same disk with another size, or read-only (`ro`), or writable again (`rw`)."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Take all the space that is left; the file that does."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        for size in (65536, 4096):
            with suppress(OSError):  # until it is full
                while True:
                    file.write(b"x" * size)
    assert shutil.disk_usage(disk).free == 0
    return ballast


def during(
    words: list[str], cache: Path, run_dir: Path, step: int, act: Callable[[], object]
) -> subprocess.CompletedProcess[str]:
    """Run a command, `act` once metrics.jsonl has reached `step`, and how it ended."""
    process = start(words, cache)
    deadline = time.monotonic() + 200
    try:
        while last_step(run_dir) < step:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        act()
        out, err = process.communicate(timeout=200)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def checkpoints(run_dir: Path) -> dict[str, bytes]:
    """Every file of every finished checkpoint."""
    folder = run_dir / "checkpoints"
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.glob("step-*/*") if file.is_file()}


def assert_one_sentence(result: subprocess.CompletedProcess[str], *said: str, exit_code: int = 1) -> None:
    """The command ended with that code and a message that holds `said`, and nobody saw a traceback."""
    assert result.returncode == exit_code, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr, result.stderr
    complaint = result.stderr[result.stderr.index("prefopt: ") :]
    for words in said:
        assert words in complaint, complaint


def assert_goes_on(words: list[str], cache: Path, run_dir: Path) -> str:
    """The same command ends well, every step logged once, and a model; what it said."""
    result = prefopt(words, cache)
    assert result.returncode == 0, result.stderr
    assert [line["step"] for line in metrics(run_dir) if "lr" in line] == list(range(1, NUM_STEPS + 1))
    assert (run_dir / "model" / "model.safetensors").exists()
    assert not list((run_dir / "checkpoints").glob(".tmp-*"))
    return result.stdout
