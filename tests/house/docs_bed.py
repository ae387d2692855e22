"""The pages of docs/: their commands, and the files that they spell out, for the tests that run them."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import ROOT

DOCS = ROOT / "docs"


def text_of(page: str) -> str:
    """A page by its path in docs."""
    return (DOCS / page).read_text(encoding="utf-8")


def commands_of(page: str) -> list[list[str]]:
    """The words of each command of a page's console blocks, in order."""
    return [
        shlex.split(line[2:])
        for block in re.findall(r"```console\n(.*?)```", text_of(page), re.S)
        for line in re.sub(r"\\\n *", "", block).splitlines()
    ]


def files_of(page: str) -> dict[str, str]:
    """Name to content of the files that a page spells out."""
    return dict(re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)```", text_of(page), re.S | re.M))


def write_files(page: str, folder: Path) -> None:
    """Put a page's files into a folder, where none of them may be yet."""
    for name, content in files_of(page).items():
        path = folder / name
        assert not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
