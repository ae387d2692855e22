"""docs/pairs.md names every stage and file that there is; its files work as they stand, its commands run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pairs"))
from server_bed import Seen, serving
from tiny import ROOT, environment

from prefopt.pairs.registry import KINDS, names, stage_class
from prefopt.pairs_config import compose_pairs
from prefopt.recipe_files import PAIRS_TREE, choices, search_path

PAGE = (ROOT / "docs" / "pairs.md").read_text(encoding="utf-8")
COMMANDS = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.S)
    for line in re.sub(r"\\\n *", "", block).splitlines()
]
FILES = dict(re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)```", PAGE, re.S | re.M))
SHOW = ("--help", "--show-config")
SERVER = "http://localhost:8000/v1"

Run = Callable[[list[str]], str]


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, the header left out."""
    under = PAGE.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]
    return [line.strip("| ").split(" | ") for line in under.splitlines() if line.startswith("| `")]


def names_in(heading: str) -> list[str]:
    return sorted(row[0].strip("`") for row in rows_of(heading))


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_a_kind_has_every_stage_and_no_other(kind: str) -> None:
    assert names_in(f"### `{kind}=`") == names(kind)


def test_the_table_says_what_each_selection_writes() -> None:
    for name, writes, _ in rows_of("### `select=`"):
        assert writes == stage_class("select", name.strip("`")).writes


def test_the_table_of_recipes_has_every_recipe_and_each_composes() -> None:
    found = sorted(choices("recipe", search_path(tree=PAIRS_TREE)))
    assert names_in("### `recipe=`") == found


def test_every_loop_of_prefopts_is_named() -> None:
    for name in choices("rounds/recipe", search_path()):
        assert f"`{name}`" in PAGE


def test_every_command_is_prefopts_and_every_pairs_command_composes() -> None:
    assert all(command.startswith("prefopt ") for command in COMMANDS)
    assert len(COMMANDS) > 10
    for command in COMMANDS:
        words = shlex.split(command)
        if words[1] == "pairs" and "score=ends" not in words and "--help" not in words:
            assert compose_pairs([word for word in words[2:] if not word.startswith("--")])


def answer(number: int, seen: Seen) -> str:
    """An answer, and a grade: the server is both policy and judge."""
    return f"Answer {number}.\nScore: {number % 5 + 1}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: a copy of prefopt to which the page's files are added, so that its stage is found."""
    folder = tmp_path_factory.mktemp("pairs-docs")
    for part in ("prefopt", "recipes"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        assert not (folder / name).exists()
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "bin").mkdir()
    script = folder / "bin" / "prefopt"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m prefopt.cli "$@"\n')
    script.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> Run:
    """Runs a command to its end, there, with these variables besides; gives what it prints."""

    def given(words: list[str], **variables: str) -> str:
        known = environment(place / "cache")
        path = f"{place / 'bin'}{os.pathsep}{known['PATH']}"
        every = {**known, "PATH": path, "PYTHONPATH": str(place), "JUDGE_KEY": "not-a-real-one", **variables}
        done = subprocess.run(words, cwd=place, env=every, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    return given


@pytest.mark.slow
@pytest.mark.long
def test_every_command_runs_in_the_order_of_the_page(place: Path, run: Run) -> None:
    with serving(answer) as server:
        for command in COMMANDS:
            before = {file.name for file in (place / "pairs").glob("*")}
            said = run([word.replace(SERVER, server.url) for word in shlex.split(command)])
            assert said
            if any(word in command for word in (*SHOW, "--dry-run")):
                assert {file.name for file in (place / "pairs").glob("*")} == before
        assert server.seen
    listed = " ".join(row[0] for row in rows_of("## The folder"))
    for file in (place / "pairs" / "first").iterdir():
        assert f"`{file.name}{'/' if file.is_dir() else ''}`" in listed
    assert (place / "pairs" / "parts" / "pairs.jsonl").stat().st_size
    assert (place / "rounds" / "best" / "round-2" / "train" / "model").is_dir()


@pytest.mark.slow
@pytest.mark.long
def test_the_tasks_of_the_job_array_make_what_one_process_makes(place: Path, run: Run) -> None:
    last = re.search(r"#SBATCH --array=0-(\d+)\n", FILES["pairs.sbatch"])
    assert last is not None
    tasks = range(int(last[1]) + 1)
    for task in reversed(tasks):
        array = {"ID": str(task), "MIN": "0", "MAX": last[1], "STEP": "1", "COUNT": str(len(tasks))}
        run(["bash", "pairs.sbatch"], **{f"SLURM_ARRAY_TASK_{key}": value for key, value in array.items()})
    alone = FILES["pairs.sbatch"].split("activate\n")[1].replace("pairs/array shard=slurm", "pairs/alone")
    run(["bash", "-c", alone])
    for name in ("pairs.jsonl", "candidates.jsonl", "left_out.jsonl"):
        assert (place / "pairs" / "array" / name).read_bytes() == (place / "pairs" / "alone" / name).read_bytes()
