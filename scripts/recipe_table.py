"""Write docs/recipes.md: every recipe with its source, hardware and score, and what `prefopt plan` says of it.

    python scripts/recipe_table.py            # the whole page, some minutes; nothing is downloaded
    python scripts/recipe_table.py --check    # 1 where the page does not say what the recipes say, plans left aside

The header of a recipe has the rest: lines `# source:`, `# hardware:` and `# expected:`, each up to the next one.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

from prefopt.config import compose
from prefopt.errors import UserError
from prefopt.recipe_files import choices, packaged, search_path, title
from prefopt.sweeps.params import stated_by_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "recipes.md"
LABELS = ("source", "departs", "hardware", "expected")
OF_ONES_OWN = (20_000, 185, 305)
"""Rows, and tokens of prompt and response, of data that a user makes first: for the memory alone."""

HEAD = """# Recipes

`prefopt train recipe=NAME`. The file, `recipes/recipe/NAME.yaml`, says at its top what comes first where something
must, and what departs from the source; each value has its source beside it. None of these runs but `quickstart` was
made by us: scores are those of the authors, by their evaluators. The tests compose, check and plan all of them, and
train the settings of each for two steps on a tiny model of its family.

Memory of a GPU and hours are `prefopt plan`'s, on the paper's machine where that is known (docs/plan.md says how far
off plans were, and that their times are not checked): "own data" means that the rows come first, so that only memory
can be told, if anything. This page is written by `scripts/recipe_table.py`, and a test holds it against the recipes.
"""

SWEEPS = """
## Sweeps

`prefopt train -m recipe=NAME`. A key that the command line gives, with one value or several, is not swept over; the
files say in which order to search. `model=... data=...` take them to another setting.
"""


class Machine(NamedTuple):
    """Nodes, GPUs of each, and their name in `prefopt plan --gpu`."""

    nodes: int
    gpus: int
    name: str


@dataclass(frozen=True)
class Header:
    """What stands at the top of a recipe."""

    title: str
    source: str
    departs: str
    hardware: str
    expected: str

    @property
    def machine(self) -> Machine:
        """The machine of the paper, or the one that is planned for.

        Raises: ValueError where the line names none.
        """
        found = re.search(r"(?:(\d+) nodes of )?(\d+) x ([a-z0-9-]+)", self.hardware)
        if found is None:
            raise ValueError(f"hardware: {self.hardware!r} names no machine, such as 4 x h100")
        return Machine(int(found[1] or 1), int(found[2]), found[3])


def header(file: Path) -> Header:
    """The header of a recipe file: each label's text runs to the next label or the first line without one."""
    found = dict.fromkeys(LABELS, "")
    label = ""
    for line in file.read_text(encoding="utf-8").split("\n"):
        if not line.startswith("# ") or not line[2:].strip():
            label = ""
            continue
        begins = re.match(rf"# ({'|'.join(LABELS)}): (.*)", line)
        if begins:
            label = begins[1]
        if label:
            found[label] = f"{found[label]} {begins[2] if begins else line[2:]}".strip()
    return Header(title(file), **found)


def recipes() -> Iterator[tuple[str, Path]]:
    """Name and file of every recipe of one run."""
    for name, file in choices("recipe", search_path()).items():
        if file.is_relative_to(packaged()) and not name.startswith("sweep/"):
            yield name, file


def sweeps() -> Iterator[str]:
    """A row of each recipe that is a sweep: name, title, keys and values, number of runs, source."""
    for name, file in choices("recipe", search_path()).items():
        if name.startswith("sweep/"):
            params = stated_by_recipe([f"recipe={name}"], None)["params"]
            runs = prod(len(str(values).split(",")) for values in params.values())
            keys = "; ".join(f"`{key}` {str(values).replace(',', ', ')}" for key, values in params.items())
            yield _row(f"`{name}`", header(file).title, keys, str(runs), header(file).source)


def said(name: str, file: Path) -> list[str]:
    """Of one recipe, the cells that the file itself says."""
    found = header(file)
    return [f"`{name}`", found.title, found.source, found.hardware, found.expected]


def planned(name: str, machine: Machine) -> tuple[str, str]:
    """GiB of a GPU and hours, as `prefopt plan` has them; why not, where it has none."""
    from prefopt.plan.command import plan_of
    from prefopt.plan.place import Wished
    from prefopt.plan.rows import Given

    if machine.name == "cpu":
        return "-", "a minute"
    run = compose([f"recipe={name}", f"launch.num_nodes={machine.nodes}", f"launch.gpus_per_node={machine.gpus}"])
    is_own = any(source.path.endswith(".jsonl") for source in run.data.train)
    given = Given(*_of_ones_own(run.data.max_length)) if is_own else Given()
    if any(margin.path for margin in run.data.margins):
        return "-", "own data"
    try:
        found = plan_of(run, Wished(gpu=machine.name), given)
    except UserError as error:
        return "-", f"no plan: {error.message}"
    fits = "" if found.verdict.word == "fits" else f" ({found.verdict.word})"
    return f"{found.verdict.needed / 2**30:.0f}{fits}", "own data" if is_own else f"{found.seconds / 3600:.1f}"


def _of_ones_own(max_length: int) -> tuple[int, int, int]:
    """Rows and lengths of data that nobody has seen, cut in proportion where a recipe's rows are shorter."""
    rows, prompt, response = OF_ONES_OWN
    share = min(1.0, max_length / (prompt + response))
    return rows, int(share * prompt), int(share * response)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page() -> str:
    """The whole page."""
    columns = ["recipe", "what", "source", "hardware", "expected", "GiB a GPU", "hours"]
    lines = [HEAD, _row(*columns), _row(*["---"] * len(columns))]
    for name, file in recipes():
        lines.append(_row(*said(name, file), *planned(name, header(file).machine)))
        print(lines[-1], file=sys.stderr, flush=True)
    columns = ["recipe", "what", "swept over", "runs", "source"]
    lines += [SWEEPS, _row(*columns), _row(*["---"] * len(columns)), *sweeps()]
    return "\n".join(lines) + "\n"


def stale(text: str) -> list[str]:
    """Rows that a page should begin with and does not, and names that it has beside those of the recipes."""
    rows = [_row(*said(name, file))[:-1] for name, file in recipes()] + list(sweeps())
    missing = [row for row in rows if f"\n{row}" not in text]
    known = {f"`{name}`" for name in choices("recipe", search_path())}
    return missing + [name for name in re.findall(r"^\| (`[^`]+`)", text, re.MULTILINE) if name not in known]


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        wrong = stale(PAGE.read_text(encoding="utf-8"))
        print("\n".join(wrong))
        return 1 if wrong else 0
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
