"""Small runs that can be harmed: the real command, moments in its life, and what a run must leave behind."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import environment, metrics, overrides

from prefopt.train.timings import TIMINGS

ROOT = Path(__file__).resolve().parents[2]
COMMON = (
    "loss=dpo",
    "train.save_every=2",
    "train.eval_every=3",
    "train.keep_checkpoints=3",
    "sample.count=2",
    "sample.max_new_tokens=8",
)
SHAPES: dict[str, tuple[str, ...]] = {
    "one process": (),
    "one process, LoRA with dropout": ("model.lora={r: 4, dropout: 0.2}",),
    "two ranks, DDP": ("launch.num_processes=2",),
    "two ranks, ZeRO-3": ("launch.num_processes=2", "deepspeed=zero3"),
}
SECONDS = 600
"""After which a command counts as hanging."""


@dataclass
class Run:
    """One run folder with a cache of its own, and the command that trains in it."""

    model: Path
    pairs: Path
    place: Path
    more: tuple[str, ...]
    added: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.place.mkdir(parents=True)

    @property
    def folder(self) -> Path:
        return self.place / "run"

    @property
    def cache(self) -> Path:
        return self.place / "cache"

    def start(self, **added: str) -> subprocess.Popen[str]:
        """The command, in a process group of its own. added: to its environment."""
        words = ["train", *overrides(self.model, self.pairs, self.folder, *COMMON, *self.more)]
        env = environment(self.cache)
        path = [str(Path(__file__).parent / "planted")] if added else []
        env["PYTHONPATH"] = os.pathsep.join([*path, env.get("PYTHONPATH") or str(ROOT)])
        return subprocess.Popen(
            [sys.executable, "-m", "prefopt.cli", *words],
            cwd=self.place,
            env={**env, **added},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self) -> tuple[int, str]:
        """The command to its end: exit code and stderr."""
        return ended(self.start())

    def left(self) -> dict[str, Any]:
        """All that the numbers of a finished run can be told by, and the names of what lies in its folder."""
        (last, *_) = sorted((self.folder / "checkpoints").glob("step-*"), reverse=True)
        tensors: dict[str, bytes] = {}
        for file in [*sorted(last.glob("*.safetensors")), *sorted((self.folder / "model").glob("*.safetensors"))]:
            for name, tensor in load_file(file).items():
                tensors[f"{file.parent.name}/{file.name} {name}"] = tensor.float().numpy().tobytes()
        result = json.loads((self.folder / "result.json").read_text(encoding="utf-8"))
        scored_anew = ("seconds", "reference_rows_scored")  # a killed run may have scored them before
        return {
            "tensors": {name: hashlib.sha256(held).hexdigest() for name, held in tensors.items()},
            "metrics": [{k: v for k, v in line.items() if k not in TIMINGS} for line in metrics(self.folder)],
            "result": {k: v for k, v in result.items() if k not in scored_anew},
            "samples": (self.folder / "samples.jsonl").read_text(encoding="utf-8"),
            "names": sorted(p.name for p in self.folder.iterdir() if p.name != "exit.json"),
            # A run that is asked to stop saves at steps of its own, but keeps as many, and the last is the same.
            "checkpoints": [last.name, *sorted(n.partition("-")[0] for n in os.listdir(last.parent))],
        }


def ended(process: subprocess.Popen[str], seconds: float = SECONDS) -> tuple[int, str]:
    """Exit code and stderr of a command; one that does not end in time is killed and raises TimeoutExpired."""
    try:
        _, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    return process.returncode, err


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9 of the command's process group; returns when its ranks are gone too."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The ranks under a command, in order; fewer than there are where some have not begun or have ended."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            words = child.cmdline()
            if "prefopt.train" in words and words[1:3] in (["-u", "-m"], ["-m", "prefopt.train"]):
                found.append((int(child.environ().get("RANK", "0")), child))
        except psutil.Error:
            continue
    return [child for _, child in sorted(found, key=lambda one: one[0])]


@dataclass(frozen=True)
class Moment:
    """A moment in the life of a run, and how long after it began the harm may come, in seconds."""

    name: str
    has_begun: Callable[[Run, int], bool]
    spread: float


def _any(folder: Path, pattern: str) -> bool:
    return folder.is_dir() and any(folder.glob(pattern))


def _is_evaluating(run: Run, step: int) -> bool:
    lines = [line["step"] for line in metrics(run.folder) if line["step"] >= step // 3 * 3]
    return lines == [step // 3 * 3] if step >= 3 else lines == [] and (run.folder / "metrics.jsonl").exists()


MOMENTS = (
    Moment("start", lambda run, step: True, 3.0),
    Moment("data preparation", lambda run, step: _any(run.cache, "encoded/.*"), 0.05),
    Moment("reference scoring", lambda run, step: _any(run.cache, "reference/*.lock"), 0.1),
    Moment("training", lambda run, step: any(line["step"] >= step for line in metrics(run.folder)), 0.05),
    Moment("evaluation", _is_evaluating, 0.01),
    Moment("saving", lambda run, step: _any(run.folder / "checkpoints", ".tmp-step-*"), 0.01),
    Moment("rehearsal of the model", lambda run, step: (run.folder / "rehearsed-model").exists(), 4.0),
    Moment("final model", lambda run, step: (run.folder / "unverified-model").exists(), 4.0),
    Moment("the very end", lambda run, step: (run.folder / "model").exists(), 0.05),
)
"""In the order in which a run comes to them, training, evaluation and saving by turns."""


def wait_for(moment: Moment, run: Run, process: subprocess.Popen[str], luck: random.Random, num_steps: int) -> bool:
    """Return at a random instant after `moment` began; False where the command ended before."""
    step, deadline = luck.randint(1, num_steps - 1), time.monotonic() + SECONDS
    while not moment.has_begun(run, step):
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.0005)
    time.sleep(luck.uniform(0, moment.spread))
    return process.poll() is None
