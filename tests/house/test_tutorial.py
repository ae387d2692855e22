"""docs/tutorial.md from its first command to its last, the kill in the middle included."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from docs_bed import commands_of, write_files
from reference_bed import undocumented
from tiny import kill_at_step, prefopt

COMMANDS = commands_of("tutorial.md")
AGAIN = [place for place, words in enumerate(COMMANDS) if place and words == COMMANDS[place - 1]]
"""The command that is given a second time: the first one is killed."""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_command_runs_in_the_order_of_the_page(tmp_path: Path) -> None:
    assert len(AGAIN) == 1
    write_files("tutorial.md", tmp_path)
    cache = tmp_path / "cache"
    said = {}
    for place, words in enumerate(COMMANDS):
        if words[0] == "python":
            subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, check=True, timeout=60)
            continue
        assert words[0] == "prefopt"
        if place + 1 in AGAIN:
            kill_at_step(words[1:], cache, tmp_path / "runs/dpo", step=6, cwd=tmp_path)
            continue
        done = prefopt(words[1:], cache, cwd=tmp_path, timeout=600)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        said[place] = done.stdout
    assert "chosen equals rejected" in said[1]
    assert "resuming after step" in said[AGAIN[0]]
    for run in ("dpo", "simpo", "reward", "own"):
        assert (tmp_path / "runs" / run / "model" / "config.json").is_file()
        lines = (tmp_path / "runs" / run / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
        assert undocumented({key for line in lines if line for key in json.loads(line)}) == set()
    assert (tmp_path / "report.html").is_file()
