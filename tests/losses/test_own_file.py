"""A method of one's own: where its two files belong, which values are in force, and what is said of a broken file.

The file is written into a copy of prefopt, as a reader of docs/howto/loss.md writes it into a clone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prefopt.loss_file import place_of

ROOT = Path(__file__).resolve().parents[2]
GOOD = '''"""A hinge on the difference of mean log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit

__all__ = ["SoftHinge"]


@dataclass(frozen=True)
class SoftHinge:
    """A hinge (an example, 2026)."""

    gap: float = 2.0
    slope: float = 1.0
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(responses.mean_logps)
        values = (self.gap - self.slope * (chosen - rejected)).relu()
        return LossOutput((Component("hinge", values, Unit.PAIR),), responses.mean_logps.detach())
'''
SETTINGS = "# A hinge\nname: softhinge\ngap: 1.0\n"

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of prefopt and its recipes."""
    folder = tmp_path_factory.mktemp("clone")
    for part in ("prefopt", "recipes"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def prefopt(clone: Path, tmp_path: Path) -> Command:
    """The command of the copy, in a working directory of its own."""
    environment = {**os.environ, "PYTHONPATH": str(clone), "PYTHONDONTWRITEBYTECODE": "1"}
    shutil.rmtree(clone / "prefopt" / "losses" / "__pycache__", ignore_errors=True)
    (clone / "prefopt" / "losses" / "softhinge.py").unlink(missing_ok=True)
    (clone / "recipes" / "loss" / "softhinge.yaml").unlink(missing_ok=True)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "prefopt.cli", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The message of a command that was refused: two lines at most, and no traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) <= 2
    return done.stderr


def test_a_method_beside_the_working_directory_is_told_where_it_belongs(
    prefopt: Command, clone: Path, tmp_path: Path
) -> None:
    place = clone / "prefopt" / "losses" / "softhinge.py"
    write(tmp_path / "losses" / "softhinge.py", GOOD)
    for word in ("loss=./losses/softhinge.py", "loss=losses/softhinge.py"):
        said = refusal(prefopt("train", "recipe=quickstart", word))
        assert f"losses/softhinge.py is not looked at: a method's file is {place}" in said
        assert "its settings are recipes/loss/softhinge.yaml" in said
    write(tmp_path / "recipes" / "loss" / "softhinge.yaml", SETTINGS)
    for word in ("loss=softhinge", "loss=losses/softhinge.py"):
        said = refusal(prefopt("train", "recipe=quickstart", word))
        assert f"losses/softhinge.py is not looked at: a method's file is {place}" in said
    (tmp_path / "losses" / "softhinge.py").unlink()
    said = refusal(prefopt("losses", "softhinge"))
    assert f"A method of your own is the file {place}" in said


def test_a_method_without_settings_is_told_which_file_to_write(prefopt: Command, clone: Path) -> None:
    write(clone / "prefopt" / "losses" / "softhinge.py", GOOD)
    said = refusal(prefopt("train", "recipe=quickstart", "loss=softhinge"))
    assert "softhinge.py is there and its settings are not: write recipes/loss/softhinge.yaml" in said
    assert "loss=softhinge needs recipes/loss/softhinge.yaml" in prefopt("losses", "softhinge").stdout


def test_where_prefopt_is_installed_a_clone_is_asked_for() -> None:
    said = place_of("softhinge", Path("/venv/lib/python3.11/site-packages/prefopt/losses"))
    assert said.startswith("prefopt/losses/softhinge.py in a clone of prefopt that is installed by make install")


def test_the_values_shown_are_those_that_a_run_takes(prefopt: Command, clone: Path, tmp_path: Path) -> None:
    write(clone / "prefopt" / "losses" / "softhinge.py", GOOD)
    write(tmp_path / "recipes" / "loss" / "softhinge.yaml", SETTINGS)
    shown = prefopt("losses", "softhinge").stdout.splitlines()
    assert "    loss.gap=1.0   (of recipes/loss/softhinge.yaml, which is in force; the class says 2.0)" in shown
    assert "    loss.slope=1.0   (from the class: recipes/loss/softhinge.yaml has no slope)" in shown
    composed = prefopt("train", "recipe=quickstart", "loss=softhinge", "--show-config").stdout
    settings = {line.split()[0]: line.split()[1] for line in composed.splitlines() if line.startswith("loss.")}
    assert settings == {"loss.name": "softhinge", "loss.gap": "1.0", "loss.slope": "1.0"}


BROKEN = {
    "a unit that there is not": (
        "Unit.PAIR",
        "Unit.LABEL",
        "softhinge.py, line 24: there is no Unit.LABEL, there are TOKEN, SEQUENCE_TOKEN, RESPONSE, DESIRABLE,",
    ),
    "a syntax error": ("def __call__(self,", "def __call__(self", "softhinge.py, line 21: "),
    "a wrong name in __all__": ('["SoftHinge"]', '["Softhinge"]', "__all__ names 'Softhinge', which the file does not"),
    "no __all__": ("__all__ =", "all_of_it =", "__all__ names the one dataclass of the file, and there is none"),
    "a wrong import": ("import dataclass\n", "import dataklass\n", "softhinge.py, line 5: ImportError: "),
    "no default": ("gap: float = 2.0", "gap: float", "gap of SoftHinge has no default"),
    "no needs": ("needs: ", "asks: ", "SoftHinge does not say what it needs"),
    "no call": ("__call__", "call", "SoftHinge cannot be called"),
    "no dataclass": ("@dataclass(frozen=True)", "", "SoftHinge is not a dataclass"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_file_of_a_method_is_one_sentence(fault: str, prefopt: Command, clone: Path) -> None:
    before, after, said = BROKEN[fault]
    assert before in GOOD
    write(clone / "prefopt" / "losses" / "softhinge.py", GOOD.replace(before, after, 1))
    assert said in refusal(prefopt("losses", "softhinge"))
