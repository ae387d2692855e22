"""A SLURM that runs, and a folder in which prefopt is used with it: what the tests on a cluster share."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny

LONG = ["train.epochs=100", "train.eval_every=never", "train.save_every=never", "train.log_every=20"]
"""800 steps: some twenty seconds, in which a run can be caught."""


@dataclass(frozen=True)
class Cluster:
    """A SLURM that runs, and the environment in which its commands and prefopt find it."""

    environment: dict[str, str]

    def run(self, *words: str, cwd: Path | None = None) -> str:
        """The output of one of SLURM's commands."""
        done = subprocess.run(words, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout.strip()

    def wait_for_end(self, *jobs: str, seconds: float = 240) -> None:
        """Until the queue holds none of these jobs."""
        wait_until(lambda: not self.run("squeue", "--noheader", f"--jobs={','.join(jobs)}"), seconds)


def wait_until(holds: Callable[[], bool], seconds: float = 240) -> None:
    """Look every second; the test fails where it does not come true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(1)


class Desk:
    """A folder to work in, with a tiny model and pairs, and the commands given there."""

    def __init__(self, folder: Path, cluster: Cluster, shared: Path) -> None:
        self.folder, self.cluster, self.shared = folder, cluster, shared
        self.environment = {**tiny.environment(shared / "cache"), **cluster.environment, "OMP_NUM_THREADS": "1"}
        self.environment["PREFOPT_CACHE"] = str(shared / "cache")
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{self.environment['PATH']}"

    def prefopt(self, *words: str, code: int | None = 0) -> str:
        """What `prefopt WORDS` prints; its exit code is `code`."""
        done = subprocess.run(
            [sys.executable, "-m", "prefopt.cli", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def overrides(self, *more: str) -> list[str]:
        """A run of a few seconds."""
        words = tiny.overrides(self.shared / "model", self.shared / "pairs.jsonl", Path("unused"))
        return [*(word for word in words if not word.startswith("dir=")), *more]

    def status(self) -> list[dict[str, Any]]:
        """The jobs of the newest sweep as `prefopt sweep status --json` tells them."""
        done = subprocess.run(
            [sys.executable, "-m", "prefopt.cli", "sweep", "status", "--json"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return json.loads(done.stdout)["jobs"]

    def states(self) -> list[str]:
        return [job["state"] for job in self.status()]

    def wait_for(self, *states: str, seconds: float = 300) -> list[dict[str, Any]]:
        """The jobs once they have these states."""
        wait_until(lambda: tuple(self.states()) == states, seconds)
        return self.status()

    def log(self, job: dict[str, Any]) -> str:
        return (self.folder / job["log"]).read_text(encoding="utf-8")

    def steps(self, job: dict[str, Any]) -> int:
        return tiny.last_step(self.folder / job["dir"])
