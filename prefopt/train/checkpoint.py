"""Checkpoints that are whole or not there.

A checkpoint is written into a temporary folder, every file is synced, a manifest with the sha256 of each file is
written last, the folder is renamed, and its parent synced. Resuming takes the newest one whose manifest holds.

Every rank writes the parts of the weights and of the optimiser's state that it holds (`parts.py`); any other number of
ranks, and any other engine, goes on from them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from prefopt.disk import GO_ON, disk_error, free_space, what_to_do
from prefopt.durable import publish, sync, sync_tree, write_text
from prefopt.errors import RunError
from prefopt.train.engine import Engine
from prefopt.train.parts import SavedParts, write_parts

MANIFEST = "manifest.json"


@dataclass
class Progress:
    """Where a run is, besides weights and optimiser. The position in the data is the number of steps done.

    best, best_step: best value of train.best_metric (larger is better) and when. evaluations_since_best: for early
    stopping. before, latest, at_best: evaluations before the first update, of the last time, and at the best step.
    skipped: steps that were left out. collapse: what ended the run at this step, where the model had collapsed.
    looks_due: evaluation and samples of this step have not been made, because somebody asked to stop.
    """

    step: int = 0
    best: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0
    before: dict[str, float] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    at_best: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    collapse: str = ""
    looks_due: bool = False


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first; finished does not yet mean undamaged."""
    return sorted(folder.glob("step-*"))


def save(engine: Engine, folder: Path, progress: Progress, keep: int) -> Path:
    """Write a checkpoint of every rank's state; keeps the newest `keep` and the best one.

    Raises: RunError, on every rank, where the disk is full or fails; older checkpoints are untouched.
    """
    name = f"step-{progress.step:08d}"
    temporary, final = folder / f".tmp-{name}", folder / name
    if final.exists():
        return final
    unwritten = f"checkpoint {name} could not be written"
    try:
        _together(engine, unwritten, folder, lambda: _begin(temporary), main_only=True)
        _together(engine, unwritten, folder, lambda: _write_state(engine, temporary))
        seal = partial(_publish, temporary, final, progress, _maker(engine))
        _together(engine, unwritten, folder, seal, main_only=True)
    except RunError:
        if engine.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    undeleted = f"checkpoints older than {name} could not be deleted"
    _together(engine, undeleted, folder, lambda: prune(folder, keep, progress.best_step), main_only=True)
    return final


def _together(engine: Engine, failing: str, folder: Path, work: Callable[[], None], main_only: bool = False) -> None:
    """Work on every rank, or on the main one alone, which all wait for.

    Raises: RunError on every rank where it failed on any. failing: the beginning of its sentence.
    """
    problem: tuple[str, int] | None = None
    try:
        if engine.is_main or not main_only:
            work()
    except (OSError, RuntimeError, SafetensorError) as error:  # of a full disk, torch and safetensors say so
        said, number = disk_error(error)
        problem = said or f"{type(error).__name__}: {error}".splitlines()[0], number
    if problems := [p for p in engine.gather(problem) if p]:
        said, number = problems[0]
        raise RunError(f"{failing} ({said}; {free_space(folder)})", what_to_do(number))


def _begin(temporary: Path) -> None:
    if not temporary.parent.exists():
        temporary.parent.mkdir()  # not its parents: a run folder that was deleted stays so
        sync(temporary.parent.parent)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()


def _publish(temporary: Path, final: Path, progress: Progress, made_by: dict[str, Any]) -> None:
    _seal(temporary, progress, made_by)
    publish(temporary, final)


def newest(folder: Path) -> tuple[Path, Progress, list[str]] | None:
    """The newest checkpoint whose files are what its manifest says, and what was wrong with newer ones.

    Damaged ones are set aside by renaming (`damaged-step-...`), unfinished ones deleted.

    Raises: RunError where the disk cannot be read, which is no damage of the checkpoint's.
    """
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover)
    complaints: list[str] = []
    for path in reversed(checkpoints(folder)):
        problem = damage(path)
        if not problem:
            progress = json.loads((path / MANIFEST).read_text())["progress"]
            return path, Progress(**progress), complaints
        aside = path.with_name(f"damaged-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        complaints.append(f"{path.name}: {problem}; set aside as {aside.name}")
    return None


def load(engine: Engine, path: Path) -> str:
    """Put every rank's state back: weights, optimiser, random states. Any engine and number of ranks may go on.

    Returns a line that says what could not be put back; empty where everything was.
    """
    engine.kind.restore(SavedParts(path), with_optimizer=True)
    made_by = json.loads((path / MANIFEST).read_text())["made_by"]
    if (made_by["processes"], made_by["device"]) != (engine.world_size, engine.device.type):
        # Of no meaning to other ranks; what they draw from here on follows from the seed and the checkpoint alone.
        words = [engine.run.train.seed, int(path.name.removeprefix("step-")), engine.rank]
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]))
        has_dropout = engine.run.model.lora is not None and engine.run.model.lora.dropout > 0
        there = f"{made_by['processes']} processes on {made_by['device']}"
        return f"dropout draws other numbers than {there} would" if has_dropout else ""
    states = load_file(path / f"random-{engine.rank}.safetensors")
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
    return ""


def load_weights(engine: Engine, path: Path) -> None:
    """Only the weights (of the best checkpoint, at the end)."""
    engine.kind.restore(SavedParts(path), with_optimizer=False)


def _maker(engine: Engine) -> dict[str, Any]:
    return {"processes": engine.world_size, "device": engine.device.type, "engine": engine.run.engine}


def _write_state(engine: Engine, folder: Path) -> None:
    write_parts(engine.kind.state(), folder / f"state-{engine.rank}.safetensors")
    states = {"cpu": torch.get_rng_state()}
    if engine.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    save_file(states, folder / f"random-{engine.rank}.safetensors")


def _seal(folder: Path, progress: Progress, made_by: dict[str, Any]) -> None:
    files = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        with open(file, "rb") as content:
            files[str(file.relative_to(folder))] = {
                "sha256": hashlib.file_digest(content, "sha256").hexdigest(),
                "bytes": file.stat().st_size,
            }
    sync_tree(folder)
    write_text(
        folder / MANIFEST, json.dumps({"progress": asdict(progress), "made_by": made_by, "files": files}, indent=1)
    )


def damage(path: Path) -> str:
    """What is wrong with a checkpoint, or an empty string. Besides what its manifest names it holds nothing to load.

    Raises: RunError where the disk cannot be read, which is no damage of the checkpoint's.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        for name, expected in manifest["files"].items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != expected["bytes"]:
                return f"{name} has {file.stat().st_size} bytes instead of {expected['bytes']}"
            with open(file, "rb") as content:
                if hashlib.file_digest(content, "sha256").hexdigest() != expected["sha256"]:
                    return f"{name} has changed since it was written"
        foreign = [p.name for p in sorted(path.iterdir()) if p.name not in manifest["files"] and _would_be_read(p)]
        if foreign:
            return f"{foreign[0]} is not in its manifest: somebody else put it there"
    except (FileNotFoundError, ValueError, KeyError) as error:
        return f"its manifest cannot be read ({type(error).__name__})"
    except OSError as error:  # of the disk, and says nothing of the checkpoint
        raise RunError(f"checkpoint {path} cannot be read: {error.strerror}", GO_ON) from None
    return ""


def _would_be_read(file: Path) -> bool:
    """By us (`SavedParts` takes every part there is), or by another tool that takes this for one of its checkpoints."""
    return file.match("*-*.safetensors") or file.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def prune(folder: Path, keep: int, best_step: int | None) -> None:
    """Delete all checkpoints but the newest `keep` and the best one; a save that was killed may have left one more."""
    for path in checkpoints(folder)[: -max(1, keep)]:
        if best_step is not None and path.name == f"step-{best_step:08d}":
            continue
        doomed = path.with_name(f".tmp-pruned-{path.name}")
        path.rename(doomed)  # gone as a checkpoint at once, whatever happens while it is deleted
        shutil.rmtree(doomed)
