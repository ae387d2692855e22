"""docs/recipes.md says what the recipes say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from recipe_table import PAGE, header, recipes, stale

from prefopt.plan.machines import find_device


def test_the_page_has_every_recipe_as_its_file_has_it() -> None:
    assert stale(PAGE.read_text(encoding="utf-8")) == [], "run scripts/recipe_table.py"


def test_a_page_that_lacks_a_recipe_or_has_one_too_many_is_stale() -> None:
    text = PAGE.read_text(encoding="utf-8")
    line = next(line for line in text.split("\n") if line.startswith("| `simpo_llama3_base`"))
    assert len(stale(text.replace(f"{line}\n", ""))) == 1
    assert stale(text + "| `gone` | x |\n") == ["`gone`"]


@pytest.mark.parametrize(("name", "file"), list(recipes()), ids=[name for name, _ in recipes()])
def test_a_recipe_names_a_machine_that_can_be_planned_for(name: str, file: Path) -> None:
    found = header(file)
    assert find_device(found.machine.name).name == found.machine.name
    assert all((found.title, found.source, found.expected))
