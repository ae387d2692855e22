"""docs/evaluate.md names every measure that there is, and its commands run in the order of the page."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pairs"))
from server_bed import Seen, serving
from tiny import ROOT, prefopt

from prefopt.evaluate.registry import measure_names

PAGE = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
COMMANDS = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.S)
    for line in re.sub(r"\\\n *", "", block).splitlines()
]
SERVER = "http://localhost:8000/v1"


def test_the_table_has_every_measure_and_no_other() -> None:
    under = PAGE.split("### `measure=`\n", 1)[1].split("\n#", 1)[0]
    listed = [line.strip("| ").split(" | ")[0].strip("`") for line in under.splitlines() if line.startswith("| `")]
    assert sorted(listed) == measure_names()


def first_is_better(number: int, seen: Seen) -> str:
    """A judge who always prefers what stands first."""
    return "Verdict: A"


@pytest.mark.slow
@pytest.mark.long
def test_every_command_runs_in_the_order_of_the_page(tmp_path: Path) -> None:
    assert len(COMMANDS) >= 18
    with serving(first_is_better) as server:
        for command in COMMANDS:
            words = shlex.split(command.replace(SERVER, server.url))
            assert words[0] == "prefopt"
            done = prefopt(words[1:], tmp_path / "cache", cwd=tmp_path)
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            assert done.stdout
        assert len(server.seen) == 64  # 32 questions in both orders
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert list((tmp_path / "figures").glob("*.svg"))
