"""Every command of the README is run, or is a make target that exists; every recipe it names composes."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import ROOT, make_model, make_pairs, prefopt

from prefopt.config import compose
from prefopt.sweeps.groups import split
from prefopt.sweeps.plan import Combination, expand

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands_in(text: str) -> list[str]:
    """The commands of the console blocks; one that goes on after a backslash is one."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.S)
    lines = [line for block in blocks for line in re.sub(r"\\\n *", "", block).splitlines()]
    return [line[2:] for line in lines if line.startswith("$ ")]


COMMANDS = commands_in(README)
NEEDS_HUB = ("recipe=orpo_llama3", "recipe=simpo_llama3_instruct")
OURS = [c for c in COMMANDS if c.startswith("prefopt ")]
LOOP = commands_in(README.split("## From prompts to an aligned model\n")[1].split("\n## ")[0])
"""Reward model, pairs, policy, and a look at it, in the order of the README."""
LOOK = commands_in(README.split("## Look at what it did\n")[1].split("\n## ")[0])
"""What is asked of the runs that the loop leaves."""
TRAINS = [c for c in OURS if c.startswith("prefopt train") and "--dry-run" not in c and c not in LOOP]
SWEEP = [c for c in OURS if c.startswith("prefopt sweep") or "hydra/launcher=local_gpus" in c]
"""A sweep and what is then asked of it, in the order of the README."""


def words_of(command: str) -> list[str]:
    """What follows `prefopt`; README's comments left out."""
    return shlex.split(command, comments=True)[1:]


def test_the_readme_is_short_and_has_commands() -> None:
    assert len(README.splitlines()) < 220
    assert len(OURS) >= 8


def test_other_commands_are_make_targets_scripts_or_the_install() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    for command in set(COMMANDS) - set(OURS):
        words = command.split()
        if words[0] == "make":
            assert words[1] in targets
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file()
        else:
            assert words[0] == "git"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the MODEL and the pairs.jsonl that the README speaks of, and a cache beside it."""
    folder = tmp_path_factory.mktemp("readme")
    make_model(folder / "MODEL")
    make_pairs(folder / "pairs.jsonl")
    return folder


def run(command: str, place: Path) -> str:
    result = prefopt(words_of(command), place / "cache", cwd=place)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("command", [c for c in OURS if c not in TRAINS + SWEEP + LOOP + LOOK])
def test_commands_that_do_not_train(command: str, place: Path) -> None:
    assert run(command, place)
    assert not (place / "runs").exists()


@pytest.mark.parametrize("command", [c for c in TRAINS if any(name in c for name in NEEDS_HUB)])
def test_recipes_that_need_the_hub_compose(command: str) -> None:
    words, _ = split([word for word in words_of(command)[1:] if word != "-m"], None)
    (first, *_) = expand(words) if " -m " in command else [Combination(words, [])]
    composed = compose(first.overrides)
    assert composed.model.path
    assert composed.data.train


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c, marks=[pytest.mark.long] if " -m " in c else [], id=c)
        for c in TRAINS
        if c not in SWEEP and not any(n in c for n in NEEDS_HUB)
    ],
)
def test_commands_that_train(command: str, place: Path) -> None:
    out = run(command, place)
    if " -m " in command:
        assert "\n3 done\n" in out
        assert "sweep.json" in out
    else:
        assert "a fresh process finds the same log-probabilities" in out


@pytest.mark.slow
def test_a_sweep_and_what_is_asked_of_it(place: Path) -> None:
    assert " -m " in SWEEP[0]
    for command in SWEEP:
        out = run(command, place)
        assert len(re.findall(r"\bdone\b", out)) >= 3
        assert "sweep.json" in out


@pytest.mark.slow
@pytest.mark.long
def test_the_way_from_prompts_to_an_aligned_model(place: Path) -> None:
    assert len(LOOP) == 4
    _, pairs, policy, look = [run(command, place) for command in LOOP]
    assert re.search(r" rows from 10\d\d candidates of 64 prompts ", pairs)
    polite = re.search(r"polite +│ +([\d.]+) % │ +([\d.]+) %", policy)
    assert polite is not None
    assert float(polite[2]) > float(polite[1]) + 30
    assert "32 rows" in look
    scores = re.search(r"\| score of a candidate \| ([\d.]+) ", (place / "pairs/after/card.md").read_text())
    assert scores is not None
    measured, reported, compared = [run(command, place) for command in LOOK]
    assert "rewards/accuracy" in measured
    assert " done" in reported
    assert (place / "report.html").is_file()
    assert "first differs at step" in compared
    assert 1.5 < float(scores[1]) <= 3  # the base model's: 0.7
