"""Checkpoints that are whole or not there.

A checkpoint is written into a temporary folder, every file is synced, a manifest with the sha256 of each file is
written last, the folder is renamed, and its parent synced. Resuming takes the newest one whose manifest holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from prefopt.errors import RunError
from prefopt.train.engine import Engine

MANIFEST = "manifest.json"


@dataclass
class Progress:
    """Where a run is, besides weights and optimiser. The position in the data is the number of steps done.

    best, best_step: best value of train.best_metric (larger is better) and when. evaluations_since_best: for early
    stopping. before, latest, at_best: evaluations before the first update, of the last time, and at the best step.
    """

    step: int = 0
    best: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0
    before: dict[str, float] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    at_best: dict[str, float] = field(default_factory=dict)


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first; finished does not yet mean undamaged."""
    return sorted(folder.glob("step-*"))


def save(engine: Engine, folder: Path, progress: Progress, keep: int) -> Path:
    """Write a checkpoint of every rank's state; keeps the newest `keep` and the best one.

    Raises: RunError where the disk is full or cannot be written; older checkpoints are untouched.
    """
    name = f"step-{progress.step:08d}"
    temporary, final = folder / f".tmp-{name}", folder / name
    if final.exists():
        return final
    if engine.is_main:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    engine.barrier()
    problem = ""
    try:
        _write_state(engine, temporary, progress)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        problem = f"{type(error).__name__}: {error}"
    problems = [p for p in engine.gather(problem) if p]
    if problems:
        if engine.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
        free = shutil.disk_usage(folder).free
        raise RunError(
            f"checkpoint {name} could not be written ({problems[0].splitlines()[0]}; {free / 2**20:.0f} MiB free)",
            "free some space and give the same command again: it goes on from the last checkpoint",
        )
    if engine.is_main:
        _seal(temporary, progress)
        temporary.rename(final)
        _sync(folder)
        _prune(folder, keep, progress.best_step)
    engine.barrier()
    return final


def newest(folder: Path) -> tuple[Path, Progress, list[str]] | None:
    """The newest checkpoint whose files are what its manifest says, and what was wrong with newer ones.

    Damaged ones are set aside by renaming (`damaged-step-...`), unfinished ones deleted.
    """
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover)
    complaints: list[str] = []
    for path in reversed(checkpoints(folder)):
        problem = _problem(path)
        if not problem:
            progress = json.loads((path / MANIFEST).read_text())["progress"]
            return path, Progress(**progress), complaints
        aside = path.with_name(f"damaged-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        complaints.append(f"{path.name}: {problem}; set aside as {aside.name}")
    return None


def load(engine: Engine, path: Path) -> None:
    """Put every rank's state back: weights, optimiser, random states."""
    if engine.zero_stage is None:
        _load_plain(engine, path)
    else:
        loaded, _ = engine.module.load_checkpoint(str(path), tag="deepspeed", load_module_strict=False)
        if loaded is None:
            raise RunError(
                f"DeepSpeed could not load {path}", "it was made by another number of processes or ZeRO stage"
            )
    states = load_file(path / f"random-{engine.rank}.safetensors")
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def load_weights(engine: Engine, path: Path) -> None:
    """Only the weights (of the best checkpoint, at the end)."""
    if engine.zero_stage is None:
        _load_trainable(engine, path)
    else:
        engine.module.load_checkpoint(str(path), tag="deepspeed", load_module_strict=False, load_module_only=True)


def _write_state(engine: Engine, folder: Path, progress: Progress) -> None:
    if engine.zero_stage is None:
        if engine.is_main:
            trainable = {
                n: p.detach().cpu().contiguous() for n, p in engine.policy.named_parameters() if p.requires_grad
            }
            save_file(trainable, folder / "trainable.safetensors")
            torch.save(engine.optimizer.state_dict(), folder / "optimizer.pt")
    else:
        engine.module.save_checkpoint(str(folder), tag="deepspeed", exclude_frozen_parameters=True)
    states = {"cpu": torch.get_rng_state()}
    if engine.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    save_file(states, folder / f"random-{engine.rank}.safetensors")


def _load_plain(engine: Engine, path: Path) -> None:
    _load_trainable(engine, path)
    state = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)  # goes where its parameters are
    engine.optimizer.load_state_dict(state)


def _load_trainable(engine: Engine, path: Path) -> None:
    state = load_file(path / "trainable.safetensors")
    own = {n: p for n, p in engine.policy.named_parameters() if p.requires_grad}
    if own.keys() != state.keys():
        odd = sorted(own.keys() ^ state.keys())[0]
        raise RunError(f"checkpoint {path} is of another model: {odd} is only in one of them")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])


def _seal(folder: Path, progress: Progress) -> None:
    files = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        with open(file, "rb") as content:
            files[str(file.relative_to(folder))] = {
                "sha256": hashlib.file_digest(content, "sha256").hexdigest(),
                "bytes": file.stat().st_size,
            }
        _sync(file)
    for inner in [p for p in folder.rglob("*") if p.is_dir()]:
        _sync(inner)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"progress": asdict(progress), "files": files}, indent=1))
    _sync(manifest)
    _sync(folder)


def _problem(path: Path) -> str:
    """What is wrong with a checkpoint, or an empty string."""
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
    except (OSError, ValueError, KeyError) as error:
        return f"its manifest cannot be read ({type(error).__name__})"
    return ""


def _prune(folder: Path, keep: int, best_step: int | None) -> None:
    for path in checkpoints(folder)[: -max(1, keep)]:
        if best_step is not None and path.name == f"step-{best_step:08d}":
            continue
        doomed = path.with_name(f".tmp-pruned-{path.name}")
        path.rename(doomed)  # gone as a checkpoint at once, whatever happens while it is deleted
        shutil.rmtree(doomed)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
