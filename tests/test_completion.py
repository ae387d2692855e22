"""Completion of a command line: what is offered, and that real shells take it: bash, others where installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prefopt.cli import main
from prefopt.completion import SHELLS, candidates, script
from prefopt.losses import names
from prefopt.recipe_files import GROUPS

ROOT = Path(__file__).resolve().parents[1]


def test_every_command_is_offered_and_answers_to_help(capsys: pytest.CaptureFixture[str]) -> None:
    offered = [word for word in candidates("prefopt ") if not word.startswith("-")]
    assert {"train", "sweep", "pairs", "eval", "report", "completion"} <= set(offered)
    for command in offered:
        assert main([command, "--help"]) == 0, command
        assert capsys.readouterr().out.startswith(f"usage: prefopt {command}")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("prefopt tr", ["train"]),
        ("prefopt sweep re", ["resume", "retry"]),
        ("prefopt train --dry", ["--dry-run"]),
        ("prefopt train recipe=quick", ["recipe=quickstart"]),
        ("prefopt train loss=sim", ["loss=simpo"]),
        ("prefopt train loss=simpo loss.gamma", ["loss.gamma_beta_ratio="]),
        ("prefopt train model.lora.al", ["model.lora.alpha="]),
        ("prefopt train train.deterministic=", ["train.deterministic=false", "train.deterministic=true"]),
        ("prefopt train model.dtype=b", ["model.dtype=bfloat16"]),
        ("prefopt train hydra/launcher=sl", ["hydra/launcher=slurm"]),
        ("prefopt pairs score=jud", ["score=judge"]),
        ("prefopt pairs score=judge score.u", ["score.url="]),
        ("prefopt eval measure=quality measure=likeli", ["measure=likelihood"]),
        ("prefopt losses simp", ["simpo"]),
        ("prefopt losses simpo d", []),
        ("prefopt completion z", ["zsh"]),
        ("prefopt report runs/", []),  # the shell completes a path
        ("prefopt train 'loss=simp", ["loss=simpo"]),
    ],
)
def test_the_last_word_becomes_what_there_is(line: str, offered: list[str]) -> None:
    assert candidates(line) == offered


def test_every_group_and_method_of_a_run_is_offered() -> None:
    assert {f"{group}=" for group in GROUPS} <= set(candidates("prefopt train "))
    assert candidates("prefopt train loss=") == [f"loss={name}" for name in names()]


def test_own_recipes_are_offered(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("# @package _global_\n# Mine\n")
    assert candidates(f"prefopt train --config-dir {tmp_path} recipe=mi") == ["recipe=mine"]
    assert candidates("prefopt train --config-dir /nowhere/at/all recipe=quick") == ["recipe=quickstart"]


def test_a_shell_without_a_script_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bsh"]) == 2
    assert "did you mean 'bash'" in capsys.readouterr().err
    assert main(["completion"]) == 2
    for shell in SHELLS:
        assert main(["completion", shell]) == 0
        assert capsys.readouterr().out == script(shell)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH with a `prefopt` that is this one."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "prefopt"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m prefopt.cli "$@"\n')
    command.chmod(0o755)
    return folder


def ask(shell: list[str], code: str, place: Path) -> list[str]:
    """The lines that a shell prints."""
    environment = {**os.environ, "PATH": f"{place}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([*shell, code], capture_output=True, text=True, env=environment, cwd=place, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("prefopt tra", ["train"]),
        ("prefopt train loss=simp", ["simpo"]),  # bash replaces what follows "="
        ("prefopt train loss=simpo loss.form", ["loss.form="]),
        ("prefopt train recipe=quickstart model.dt", ["model.dtype="]),
    ],
)
def test_a_real_bash_completes(line: str, replies: list[str], place: Path) -> None:
    code = (
        "source <(prefopt completion bash) && complete -p prefopt >/dev/null"
        f" && COMP_LINE='{line}' COMP_POINT={len(line)} && _prefopt && printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    assert ask(["bash", "--norc", "-c"], code, place) == replies


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_a_real_zsh_takes_the_script(place: Path) -> None:
    code = "autoload -U compinit && compinit -u && source <(prefopt completion zsh) && print $_comps[prefopt]"
    assert ask(["zsh", "-f", "-c"], code, place) == ["_prefopt"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_a_real_fish_completes(place: Path) -> None:
    code = "prefopt completion fish | source; complete -C 'prefopt train loss=simp'"
    assert "loss=simpo" in ask(["fish", "--no-config", "-c"], code, place)
