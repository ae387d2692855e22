"""What is shipped: wheel and sdist hold what runs need, extras exist under the names that messages say."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DATA = ("*.yaml", "*.jinja", "*.js", "*.css", "*.txt", "*.md", "py.typed")
"""Files of the package and the recipes that are no code."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, made of the sdist beside it, as `python -m build` does."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_the_wheel_that_the_sdist_makes_has_code_recipes_and_what_they_read(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    package = {p.relative_to(ROOT).as_posix() for p in (ROOT / "prefopt").rglob("*.py")}
    data = {p.relative_to(ROOT).as_posix() for name in DATA for p in (ROOT / "prefopt").rglob(name)}
    recipes = {f"prefopt/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "recipes").rglob("*.yaml")}
    assert "prefopt/py.typed" in data
    assert any("judge_templates" in name for name in data)
    assert not (package | data | recipes) - held
    assert any(name.endswith("licenses/LICENSE") for name in held)
    assert not [name for name in held if name.startswith(("tests/", "scripts/"))]


@pytest.mark.slow
def test_the_sdist_has_tests_documents_and_licence(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        held = {name.partition("/")[2] for name in packed.getnames()}
    assert {"LICENSE", "CHANGELOG.md", "README.md", "Makefile", "constraints.txt", "docs/api.md"} <= held
    assert {"tests/test_packages.py", "recipes/train.yaml", "scripts/container/Dockerfile"} <= held


def test_every_extra_that_is_named_somewhere_exists() -> None:
    extras = PROJECT["optional-dependencies"]
    texts = [
        *(ROOT / "prefopt").rglob("*.py"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "scripts" / "container").iterdir(),
    ]
    named = {
        extra.strip()
        for file in (*texts, ROOT / "pyproject.toml")
        for words in re.findall(r"(?:prefopt|/source)\[([a-z, ]+)\]", file.read_text(encoding="utf-8"))
        for extra in words.split(",")
    }
    assert {"gpu", "slurm", "vllm"} <= named
    assert named <= extras.keys()
    assert {"gpu", "vllm", "bnb", "trackers", "eval", "dev"} <= extras.keys()


def test_upper_bounds_stand_only_where_a_break_is_known() -> None:
    known = {"hydra-core", "mkdocs", "mkdocs-material", "omegaconf", "submitit", "trl"}
    bounded = [
        re.split(r"[<>=\[]", line)[0]
        for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
        for line in lines
        if "<" in line or "==" in line
    ]
    assert set(bounded) <= known


def test_the_weekly_job_names_what_differs() -> None:
    spec = importlib.util.spec_from_file_location("resolve_weekly", ROOT / "scripts" / "resolve_weekly.py")
    assert spec is not None
    assert spec.loader is not None
    weekly = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weekly)
    old = weekly.pinned("# a comment\nAlpaca_Eval==0.6.6\ntorch==2.6.0+cpu  # CPU\ngone==1\n")
    assert old == {"alpaca-eval": "0.6.6", "torch": "2.6.0+cpu", "gone": "1"}
    new = {"alpaca-eval": "0.7", "torch": "2.6.0+cpu", "extra": "3", "prefopt": "0.1.0"}
    assert weekly.changes(old, new) == [
        "alpaca-eval: 0.6.6 -> 0.7",
        "extra: not pinned -> 3",
        "gone: 1 -> not needed",
    ]
