"""The command line as a user meets it: exit codes, messages, and what is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prefopt.cli import main


def prefopt(*words: str, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """The real command, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "prefopt.cli", *words], cwd=cwd, capture_output=True, text=True, timeout=timeout
    )


def test_misuse_is_two_lines_on_stderr_and_exit_2(tmp_path: Path) -> None:
    done = prefopt("train", "recipe=quickstart", "train.batchsize=3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "prefopt: train.batchsize: there is no such key\n  did you mean train.batch_size?\n"
    assert list(tmp_path.iterdir()) == []


def test_notes_go_to_stderr_and_settings_to_stdout(tmp_path: Path) -> None:
    done = prefopt("train", "recipe=quickstart", "loss=simpo", "--show-config", cwd=tmp_path)
    assert done.returncode == 0
    assert "loss=simpo is taken whole" in done.stderr
    assert "loss/simpo.yaml" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "did you mean 'train'?"),
        (["train", "--dryrun"], "did you mean '--dry-run'?"),
        (["train", "--config-dir"], "--config-dir"),
        (["train", "--jsn"], "did you mean '--json'?"),
        (["train", "--resume", "recipe=quickstart"], "the same command goes on from the newest checkpoint"),
        (["train", "--continue"], "the same command goes on"),
        (["train", "--resume_from_checkpoint", "runs/a"], "the same command goes on"),
        (["train", "--resume-from-checkpoint=runs/a"], "the same command goes on"),
        (["resume"], "the same command goes on"),
        (["rounds", "--resume"], "the same command goes on"),
        (["train", "--model", "m"], "settings have no dashes: model.path=MODEL"),
        (["plan", "--model", "m"], "settings have no dashes: model.path=MODEL"),
        (["pairs", "--model", "m"], "settings have no dashes: policy=MODEL"),
        (["eval", "--output-dir", "m"], "settings have no dashes: out=FOLDER"),
        (["train", "--config", "mine.yaml"], "settings have no dashes: recipe=NAME"),
        (["train", "--output_dir=x"], "settings have no dashes: dir=FOLDER"),
        (["train", "--learning-rate=1e-5"], "settings have no dashes: optim.lr=1e-5"),
        (["train", "--train.batch_size", "8"], "settings have no dashes: train.batch_size=VALUE"),
        (["report", "--qqqqq"], "known: --compare"),
        (["pairs", "mine.yaml"], "recipe=mine, a file in recipes/pairs/recipe"),
        (["rounds", "mine.yaml"], "recipe=mine, a file in recipes/rounds/recipe"),
        (["data", "--rows", "many"], "--rows"),
        (["losses", "simppo"], "did you mean 'simpo'"),
        (["losses", "dpo", "orpo"], "one method at a time"),
        (["train"], "model.path is not set"),
        (["train", "-m", "recipe=quickstart"], "no key has several values"),
        (["train", "-m", "--show-config", "recipe=quickstart"], "leave -m out"),
    ],
)
def test_misuse_is_explained(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.startswith("prefopt: ")


def test_help_lists_recipes_and_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "quickstart" in capsys.readouterr().out
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    for said in ("--dry-run", "recipe=", "loss=", "deepspeed=", "zero3", "simpo"):
        assert said in text


def test_help_lists_own_recipes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("# @package _global_\n# My own run\ntrain:\n  seed: 1\n")
    assert main(["train", "--help", "--config-dir", str(tmp_path)]) == 0
    assert "My own run" in capsys.readouterr().out


def test_losses_lists_every_method_and_describes_one(capsys: pytest.CaptureFixture[str]) -> None:
    from prefopt.losses import names

    assert main(["losses"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in names())
    assert main(["losses", "simpo"]) == 0
    text = capsys.readouterr().out
    assert "2405.14734" in text
    assert "loss.gamma_beta_ratio=0.5" in text
    assert main(["losses", "modpo"]) == 0
    assert "loss.weights=[0.5, 0.5]" in capsys.readouterr().out


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("prefopt 0.")


def rows(file: Path, count: int = 8) -> Path:
    pairs = [
        {"prompt": f"Count to {n}: ", "chosen": " ".join(map(str, range(n))), "rejected": "no"} for n in range(2, count)
    ]
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return file


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a tokenizer: the demo's, with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from prefopt import demo
    from prefopt.config import compose

    run = demo.resolve(compose(["recipe=quickstart"]), tmp_path_factory.mktemp("cache"), weights=False)
    folder = Path(run.model.path)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return folder


def tiny_run(folder: Path, model: Path, *more: str) -> list[str]:
    """A run of seconds: a random model, and rows of its own."""
    data = rows(folder / "rows.jsonl")
    return [
        *("name=tiny", f"model.path={model}", f"data.train=[{{path: {data}}}]", f"data.cache_dir={folder / 'cache'}"),
        *("data.eval_size=2", "data.max_length=128", "train.batch_size=2", "train.max_steps=2", "launch.device=cpu"),
        *more,
    ]


@pytest.mark.slow
def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path, model: Path) -> None:
    words = tiny_run(tmp_path, model, "train.tokens_per_micro_batch=auto")
    before = sorted(os.listdir(tmp_path))
    done = prefopt("train", *words, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for said in (
        "steps: 2 of 2 pairs, epochs end after",
        "auto measures when the run starts",
        "-m prefopt.train",
        "command line",
        "4 rows",
    ):
        assert said in done.stdout
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.slow
def test_run_trains_once_and_refuses_to_become_another(tmp_path: Path, model: Path) -> None:
    words = tiny_run(tmp_path, model, "dir=out")
    done = prefopt("train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    left = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"run.yaml", "manifest.json", "data.json", "data_report.json", "left_out.jsonl", "result.json"} <= left
    assert "lock.json" not in left
    held_out = (tmp_path / "out" / "held_out.jsonl").read_text(encoding="utf-8").split("\n")
    assert len({json.loads(line)["id"] for line in held_out if line}) == 2
    again = prefopt("train", *words, cwd=tmp_path)
    assert again.returncode == 0
    assert "out is done" in again.stdout
    other = prefopt("train", *words, "loss.lam=3", cwd=tmp_path)
    assert other.returncode == 2
    assert "loss.lam: 0.1 -> 3.0" in other.stderr
