"""A command with the memory of all its processes, sampled."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SECONDS_BETWEEN_SAMPLES = 0.2


@dataclass
class Peaks:
    """Peaks in bytes. resident: of each process by "number name". together: of all at one time, shared pages once
    (USS, where the system tells it). seconds: from start to end.
    """

    resident: dict[str, int] = field(default_factory=dict)
    private: dict[str, int] = field(default_factory=dict)
    together: int = 0
    seconds: float = 0.0


def watch(command: list[str], log: Path) -> Peaks:
    """Run a command to its end. Its output goes to `log`.

    Raises: subprocess.CalledProcessError where it fails.
    """
    peaks, started = Peaks(), time.perf_counter()
    with open(log, "wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            _sample(root, peaks)
            time.sleep(SECONDS_BETWEEN_SAMPLES)
    peaks.seconds = time.perf_counter() - started
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, log.read_bytes()[-2000:])
    return peaks


def _sample(root: psutil.Process, peaks: Peaks) -> None:
    together = 0
    try:
        for number, process in enumerate([root, *root.children(recursive=True)]):
            name = f"{number} {process.name()}"
            memory = process.memory_full_info()
            peaks.resident[name] = max(peaks.resident.get(name, 0), memory.rss)
            peaks.private[name] = max(peaks.private.get(name, 0), memory.uss)
            together += memory.uss
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return  # one ended while it was looked at: the next sample counts
    peaks.together = max(peaks.together, together)
