"""docs/reference: the pages that are made of docstrings and recipe files.

    python scripts/docs_reference.py            writes them
    python scripts/docs_reference.py --check    exit code 1 where one is not what it would write

`tests/house/test_docs_pages.py` compares them. Imports neither torch nor transformers.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import docs_metrics

from prefopt.losses import loss_class, make_loss, names
from prefopt.needs import NEEDS
from prefopt.recipe_files import packaged, title

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
RECIPES = packaged()


class Key(NamedTuple):
    """A key of a recipe file. name: dotted. value: as the file has it. comment: the lines above it, as one."""

    name: str
    value: str
    comment: str


def keys_of(file: Path) -> Iterator[Key]:
    """Every key of a recipe file with its comment; defaults lists are left out."""
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    in_defaults = False
    for line in file.read_text(encoding="utf-8").split("\n"):
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped[1:])
            continue
        found = re.match(r"( *)([\w.-]+):(?: +(.*))?$", line)
        if found is None or (in_defaults and found[1]):
            comment = [] if not stripped else comment
            continue
        indent, key = len(found[1]), found[2]
        in_defaults = not indent and key == "defaults"
        path = [(at, name) for at, name in path if at < indent]
        path.append((indent, key))
        value, _, beside = (found[3] or "").partition("  #")
        said = _joined(comment) or beside.strip()
        comment = []
        if not in_defaults:
            yield Key(".".join(name for _, name in path), value.strip(), said)


def _joined(lines: list[str]) -> str:
    """Comment lines as one. A line of columns, which wide gaps divide, is "name: meaning", an entry of a list."""
    text = ""
    for line in lines:
        names = re.split(r" {2,}", line.strip())
        entries = [": ".join(names[at : at + 2]) for at in range(0, len(names), 2)]
        is_list = bool(re.match(r" {3,}\w", line)) and len(names) > 1
        text += (" · " if is_list else " ") + " · ".join(entries)
    return re.sub(r" {2,}", " ", text.strip())


def _cell(text: str) -> str:
    return text.replace("|", "\\|") or " "


def _code(text: str) -> str:
    return f"`{text.replace('|', '&#124;')}`" if text else " "


def _table(keys: list[Key]) -> list[str]:
    rows = [f"| `{key.name}` | {_code(key.value)} | {_cell(key.comment)} |" for key in keys]
    return ["| key | value | meaning |", "|---|---|---|", *rows, ""]


def methods() -> str:
    """methods.md: of each method the docstring, the settings and the needs."""
    lines = [
        "# Methods\n",
        "Made by `scripts/docs_reference.py` of `prefopt/losses` and `recipes/loss`; `prefopt losses NAME` prints the"
        " same. w is the chosen, l the rejected response.\n",
    ]
    for name in names():
        first, _, rest = cleandoc(loss_class(name).__doc__ or "").partition("\n")
        needs = make_loss({"name": name}).needs
        lines += [f"## `{name}`\n", f"{_cell(first)}\n", "```text", rest.strip("\n"), "```\n"]
        settings = [key for key in keys_of(RECIPES / "loss" / f"{name}.yaml") if key.name != "name"]
        lines += _table([key._replace(name=f"loss.{key.name}") for key in settings]) if settings else []
        needed = "; ".join(f"`{need}` ({NEEDS[need]})" for need in NEEDS if need in needs)
        lines.append(f"Needs {needed or 'nothing but a response'}.\n")
    return "\n".join(lines)


SECTIONS = (
    ("prefopt train", "", ("train.yaml", "model/local.yaml", "data/local.yaml", "optim/*.yaml", "deepspeed/*.yaml",
                           "fsdp/*.yaml", "tracker/*.yaml", "hydra/launcher/*.yaml", "hydra/sweeper/*.yaml")),
    ("prefopt pairs", "pairs", ("pairs.yaml", "generate/*.yaml", "score/*.yaml", "select/*.yaml")),
    ("prefopt eval", "eval", ("eval.yaml", "measure/*.yaml")),
    ("prefopt rounds", "rounds", ("rounds.yaml",)),
)  # fmt: skip
"""The files of each command that state keys and their defaults: heading, folder, patterns."""

WHOLE = (
    "recipe/**/*.yaml",
    "model/*.yaml",
    "data/*.yaml",
    "pairs/recipe/**/*.yaml",
    "rounds/recipe/**/*.yaml",
)
"""Files that choose values for keys that the others state: a line each."""


def settings() -> str:
    """settings.md: every key of every recipe file that states defaults, and every file that chooses values."""
    lines = [
        "# Settings\n",
        "Made by `scripts/docs_reference.py` of the files in `recipes/`. A key of a group is set by `GROUP.KEY=VALUE`"
        " (`optim.lr=1e-5`), a file is chosen by `GROUP=NAME` (`optim=adafactor`). Settings of methods:"
        " [methods](methods.md).\n",
    ]
    for command, folder, patterns in SECTIONS:
        lines.append(f"## {command}\n")
        root = RECIPES / folder
        for pattern in patterns:
            for file in sorted(root.glob(pattern)):
                shown = file.relative_to(root).as_posix()
                lines += [f"### {shown}\n", f"{_cell(title(file))}\n", *_table(_prefixed(file, root))]
    lines += ["## Recipes, models and data sets\n", "| file | what |", "|---|---|"]
    files = sorted({file for pattern in WHOLE for file in RECIPES.glob(pattern) if file.stem != "local"})
    lines += [f"| `{file.relative_to(RECIPES).as_posix()}` | {_cell(title(file))} |" for file in files]
    return "\n".join([*lines, ""])


def _prefixed(file: Path, root: Path) -> list[Key]:
    """The keys of a file as they are written on a command line."""
    group = file.parent.relative_to(root).as_posix()
    prefix = "" if group == "." else group.replace("/", ".") + "."
    return [key._replace(name=prefix + key.name) for key in keys_of(file)]


PAGES = {"methods.md": methods, "settings.md": settings, "metrics.md": docs_metrics.page}


def main() -> int:
    """Write or check the pages; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    FOLDER.mkdir(parents=True, exist_ok=True)
    stale = []
    for name, make in PAGES.items():
        page = FOLDER / name
        if not page.is_file() or page.read_text(encoding="utf-8") != make():
            stale.append(name)
            if not check:
                page.write_text(make(), encoding="utf-8")
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'none'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
