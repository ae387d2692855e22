"""Every command of README.md and docs/: a test runs it or its page says which does or that it was not run here."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from docs_bed import DOCS, commands_of, text_of
from tiny import ROOT, prefopt

PAGES = sorted(file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md"))
ASK = ["differences.md", "troubleshooting.md"]
"""Pages of which this file runs the commands: they show something and leave nothing behind."""
RUN_BY = {
    "evaluate.md": "test_evaluate_docs.py",
    "pairs.md": "test_pairs_docs.py",
    "tutorial.md": "test_tutorial.py",
    **{page: "test_howto_docs.py" for page in PAGES if page.startswith("howto/")},
    **dict.fromkeys(ASK, Path(__file__).name),
}
COMMAND = r"(?:prefopt|python|make|pip|git|sbatch|docker|apptainer|accelerate) "
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
INDENTED = re.compile(rf"((?:^.+\n)+)\n((?:^    {COMMAND}.*\n(?:^ {{8}}.*\n)*)+)", re.M)
"""A paragraph, and the commands that stand indented below it; one may go on in lines that are indented further."""


@pytest.mark.parametrize("page", [page for page in PAGES if "```console" in text_of(page)])
def test_the_commands_of_a_session_have_a_test_that_runs_them(page: str) -> None:
    test = (ROOT / "tests" / "house" / RUN_BY[page]).read_text(encoding="utf-8")
    assert Path(page).name in test or 'glob("*.md")' in test


@pytest.mark.parametrize("page", PAGES)
def test_commands_outside_of_a_session_say_who_ran_them(page: str) -> None:
    text = FENCED.sub("", text_of(page))
    blocks = INDENTED.findall(text)
    assert sum(len(re.findall(rf"^    {COMMAND}", block, re.M)) for _, block in blocks) == len(
        re.findall(rf"^    {COMMAND}", text, re.M)
    )
    for paragraph, block in blocks:
        said = "run here" in paragraph.lower() or re.findall(r"tests/[\w/.]+\.py", paragraph)
        for command in re.split(rf"^    (?={COMMAND})", block, flags=re.M)[1:]:
            assert said or "run here" in command, command
        assert all((ROOT / test).is_file() for test in re.findall(r"tests/[\w/.]+\.py", paragraph))


@pytest.mark.parametrize("page", PAGES)
def test_a_fenced_block_with_commands_is_a_session(page: str) -> None:
    for kind, block in FENCED.findall(text_of(page)):
        if kind not in ("console", "bash"):
            assert not re.search(r"^(?:\$ )?(?:prefopt (?:train|data|eval|pairs)|make test|sbatch) ", block, re.M), (
                block
            )


@pytest.mark.parametrize("page", [*PAGES, "../README.md"])
def test_targets_and_scripts_that_a_page_names_exist(page: str) -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    text = text_of(page)
    for names in re.findall(r"(?:^\$ |`)make ([a-z -]+)", text, re.M):
        assert set(names.split()) <= set(targets), names
    for script in re.findall(r"(?:^\$ |^    |`)python ((?:scripts|tests)/[\w/.]+)", text, re.M):
        assert (ROOT / script).is_file(), script


@pytest.mark.slow
@pytest.mark.parametrize("page", ASK)
def test_commands_that_only_show_something(page: str, tmp_path: Path) -> None:
    commands = commands_of(page)
    assert commands
    for words in commands:
        done = prefopt(words[1:], tmp_path.with_name("cache"), cwd=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
        assert done.stdout
    assert list(tmp_path.iterdir()) == []
