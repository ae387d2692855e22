"""A question put to a process of its own, which may hang, crash or print what it likes: the answer is one object."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What came back. said: the object that the process printed last. failed: a line where there is none, or empty."""

    said: dict[str, Any] = field(default_factory=dict)
    failed: str = ""


def ask(module: str, words: list[str], seconds: float) -> Answer:
    """`python -m MODULE WORDS`, whose last line of stdout is a JSON object. seconds: after which it is killed."""
    command = [sys.executable, "-m", module, *words]
    # A process that torchrun or accelerate started would else hand on its place in a group of its own.
    ours = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")}
    try:
        done = subprocess.run(command, env=ours, capture_output=True, text=True, timeout=seconds, errors="replace")
    except subprocess.TimeoutExpired:
        return Answer(failed=f"no answer within {seconds:g} s")
    except OSError as error:
        return Answer(failed=f"no process could be started ({error.strerror})")
    try:
        said = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        said = None
    if isinstance(said, dict):
        return Answer(said)
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return Answer(failed=f"{how}: {last}")
