"""docs/evaluate.md names every measure that there is, and its commands run in the order of the page."""

from __future__ import annotations

import csv
import json
import random
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


def write_judged_files(folder: Path) -> None:
    """annotations.json, df_gamed.csv and an Arena-Hard judgment, as the page names them: 805 and 20 rows, drawn."""
    draw = random.Random(0)
    words = [draw.randint(5, 60) for _ in range(805)]
    rows = [
        {
            "instruction": f"question {i}",
            "output_1": "b" * 100,
            "output_2": f"answer {i} " * length,
            "generator_1": "base",
            "generator_2": "mine",
            "preference": 1 + (draw.random() < length / 80),
        }
        for i, length in enumerate(words)
    ]
    (folder / "annotations.json").write_text(json.dumps(rows), encoding="utf-8")
    with open(folder / "df_gamed.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ["model", "preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"]
        )
        for model, mean in (("concise", 1.0), ("verbose", -0.5)):
            for i in range(805):
                table.writerow([model, draw.random(), i, draw.gauss(mean, 0.7), (i % 7 - 3) / 2, False])
    judged = folder / "model_judgment" / "JUDGE" / "MODEL.jsonl"
    judged.parent.mkdir(parents=True)
    with open(judged, "w", encoding="utf-8", newline="\n") as lines:
        for number in range(20):
            labels = (draw.choice(["A>B", "B>A", "A=B"]), draw.choice(["A>B", "B>A", "A>>B"]))
            games = [{"score": label, "judgment": "..."} for label in labels]
            lines.write(json.dumps({"uid": f"q{number}", "model": "MODEL", "games": games}) + "\n")


@pytest.mark.slow
@pytest.mark.long
def test_every_command_runs_in_the_order_of_the_page(tmp_path: Path) -> None:
    assert len(COMMANDS) >= 20
    write_judged_files(tmp_path)
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
