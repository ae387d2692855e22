"""Two nodes on one machine: the same command twice, which meets at a port of 127.0.0.1."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tiny import environment, last_step, make_model, make_pairs, overrides


@dataclass
class Bed:
    """A tiny model, pairs, a cache, and the commands of runs on them."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = make_model(self.folder / "model")
        self.pairs = make_pairs(self.folder / "pairs.jsonl")
        self.cache = self.folder / "cache"

    def start(
        self, run_dir: Path, *more: str, cwd: Path | None = None, path: Path | None = None
    ) -> subprocess.Popen[str]:
        """`prefopt train` of a run. path: a folder put before PYTHONPATH."""
        words = ["train", *overrides(self.model, self.pairs, run_dir, *more)]
        env = environment(self.cache)
        root = env.get("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
        env["PYTHONPATH"] = root if path is None else f"{path}{os.pathsep}{root}"
        process = subprocess.Popen(
            [sys.executable, "-m", "prefopt.cli", *words],
            cwd=cwd or self.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def start_nodes(self, run_dir: Path, *more: str) -> list[subprocess.Popen[str]]:
        """Both nodes of a run; node 1 first, so that it has to wait."""
        port = unused_port()
        common = [*more, "launch.num_nodes=2", f"launch.rendezvous=127.0.0.1:{port}"]
        second = self.start(run_dir, *common, "launch.node_rank=1")
        return [self.start(run_dir, *common, "launch.node_rank=0"), second]

    def end(self) -> None:
        """Leave nothing behind, whatever a test left running."""
        for process in self.started:
            if process.poll() is None:
                for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                    one.send_signal(signal.SIGKILL)
                process.communicate()
        self.started.clear()


def unused_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def finish(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that ends in time."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def wait_for_step(run_dir: Path, step: int, *processes: subprocess.Popen[str], seconds: float = 240) -> None:
    """Until metrics.jsonl has reached `step`."""
    deadline = time.monotonic() + seconds
    while last_step(run_dir) < step:
        for process in processes:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The ranks under a command, in order."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        if child.cmdline()[1:3] in (["-u", "-m"], ["-m", "prefopt.train"]) and "prefopt.train" in child.cmdline():
            found.append(child)
    return sorted(found, key=lambda one: int(one.environ().get("RANK", "0")))
