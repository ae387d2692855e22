"""The commands of docs/howto run in the order of each page."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pairs"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from docs_bed import DOCS, commands_of, files_of, write_files
from reference_bed import undocumented
from server_bed import Seen, serving
from tiny import ROOT, environment, make_model

SERVER = "http://localhost:8000/v1"
PAGES = sorted(file.relative_to(DOCS).as_posix() for file in (DOCS / "howto").glob("*.md"))


def pairs_with_tone(file: Path, count: int = 40) -> None:
    """Pairs with the rewards of another objective, as the page on MODPO has them."""
    draw = random.Random(0)
    rows = []
    for number in range(count):
        chosen, rejected = "yes " * draw.randint(1, 6), "no " * draw.randint(1, 6)
        tones = {"tone_chosen": draw.random(), "tone_rejected": draw.random()}
        rows.append({"prompt": f"{number}: ask ", "chosen": chosen, "rejected": rejected, **tones})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MODEL, pairs.jsonl and more.jsonl, and the cache that all pages share."""
    folder = tmp_path_factory.mktemp("howto")
    make_model(folder / "MODEL")
    pairs_with_tone(folder / "pairs.jsonl")
    pairs_with_tone(folder / "more.jsonl", 12)
    return folder


def first_is_better(number: int, seen: Seen) -> str:
    """A judge who always prefers what stands first."""
    return "Verdict: A"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PAGES)
def test_every_command_runs_in_the_order_of_the_page(page: str, material: Path, tmp_path: Path) -> None:
    for name in ("pairs.jsonl", "more.jsonl"):
        shutil.copy(material / name, tmp_path / name)
    shutil.copytree(material / "MODEL", tmp_path / "MODEL")
    package = ROOT
    if any(name.startswith("prefopt/") for name in files_of(page)):  # they are added to a copy of prefopt
        for part in ("prefopt", "recipes"):
            shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
        package = tmp_path
    write_files(page, tmp_path)
    variables = {**environment(material / "cache"), "PYTHONPATH": f"{package}{os.pathsep}{ROOT}"}
    commands = commands_of(page)
    assert commands
    with serving(first_is_better) as server:
        for words in commands:
            assert words[0] in ("prefopt", "python")
            given = [word.replace(SERVER, server.url) for word in words[1:]]
            ours = [sys.executable, *(["-m", "prefopt.cli"] if words[0] == "prefopt" else []), *given]
            done = subprocess.run(ours, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, (words, done.stdout[-3000:], done.stderr)
    for file in tmp_path.rglob("metrics.jsonl"):
        lines = file.read_text(encoding="utf-8").split("\n")
        assert undocumented({key for line in lines if line for key in json.loads(line)}) == set(), file
