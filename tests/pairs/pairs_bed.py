"""`prefopt pairs` in real processes on the demo's model: a command of seconds, and what its folder must hold."""

from __future__ import annotations

import json
import os
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import prefopt, start

from prefopt.cache import cache_folder
from prefopt.pairs.places import real
from prefopt.settings import DataSettings

CACHE = cache_folder(DataSettings())
"""Of the user: the demo's base model is made once."""
BASE = "demo://manners/base"
COMMON = (
    f"policy={BASE}",
    "prompts=demo://manners/train.jsonl",
    "generate.max_new_tokens=24",
    "generate.n=3",
    "chunk_size=8",
    "score=python",
    "score.function=prefopt.demo.manners:utility",
    "device=cpu",
)
NUM_PROMPTS, NUM_CHUNKS = 64, 8
RESULTS = ("pairs.jsonl", "candidates.jsonl", "left_out.jsonl", "card.md", "stats.json", "pairs.parquet")
STAGES = ("generated", "judged/score")
SECONDS = 300


@dataclass(frozen=True)
class Made:
    """A folder of `prefopt pairs` and the command that makes it."""

    out: Path
    more: tuple[str, ...] = ()
    base: tuple[str, ...] = field(default=COMMON)

    @property
    def words(self) -> list[str]:
        return ["pairs", *self.base, f"out={self.out}", *self.more]

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        """The command to its end."""
        return prefopt([*self.words, *more], CACHE, self.out.parent)

    def start(self, *more: str) -> subprocess.Popen[str]:
        return start([*self.words, *more], CACHE, self.out.parent)

    def results(self) -> dict[str, bytes]:
        """Every file that does not depend on when and by whom it was made."""
        return {name: (self.out / name).read_bytes() for name in RESULTS}

    def chunks(self) -> dict[str, tuple[int, int]]:
        """Every chunk file, with what tells whether it was written anew."""
        files = [file for stage in STAGES for file in (self.out / stage).glob("*.jsonl")]
        return {str(file.relative_to(self.out)): (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}

    def rows(self, name: str = "pairs.jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / name).read_text(encoding="utf-8").splitlines()]

    def stats(self) -> dict[str, Any]:
        return json.loads((self.out / "stats.json").read_text(encoding="utf-8"))

    def complaints(self) -> list[str]:
        """Prompts that are missing from the chunks, or there twice, or in another order."""
        asked = [row["id"] for row in self.rows("prompts.jsonl")]
        answered = []
        for file in sorted((self.out / "generated").glob("*.jsonl")):
            for line in file.read_text(encoding="utf-8").splitlines():
                one = json.loads(line)
                answered.append(one["examples"][0]["id"] if one["examples"] else one["left_out"][0]["id"])
        return [] if asked == answered else [f"prompts {asked} were answered as {answered}"]


def make_base() -> str:
    """The demo's base model and prompts; where they lie."""
    real("demo://manners/train.jsonl", "prompts")
    return real(BASE)


def tree(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The workers of a command; none where it has ended. At once: psutil's own search takes as long as a chunk."""
    workers = []
    with suppress(OSError):
        for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            with suppress(psutil.NoSuchProcess):
                workers.append(psutil.Process(int(pid)))
    return workers


def kill_tree(process: subprocess.Popen[str]) -> None:
    """kill -9 of the command; returns when its workers, which must go with it, are gone."""
    workers = tree(process)
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def wait_until(process: subprocess.Popen[str], holds: Callable[[], bool]) -> bool:
    """Whether it came to hold while the command ran."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        if process.poll() is not None:
            return holds()
        time.sleep(0.0005)
    return True


def assert_one_sentence(result: subprocess.CompletedProcess[str], *said: str, code: int) -> None:
    """The command ended with that code and a message that holds `said`, and nobody saw a traceback."""
    assert result.returncode == code, (result.returncode, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr, result.stderr
    complaint = result.stderr[result.stderr.index("prefopt: ") :]
    for words in said:
        assert words in complaint, complaint
