"""Secrets: refused among settings, and in nothing that prefopt writes; by another name they would be there."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tiny import ROOT, environment, make_model, make_pairs, overrides

from prefopt import rank_logs
from prefopt.config import compose
from prefopt.errors import UserError
from prefopt.manifest import start_record
from prefopt.masking import MaskedStream, masked, masked_values, refuse_secret
from prefopt.rank_logs import Death, log_file, write_death
from prefopt.sweeps.groups import split

SECRET = "planted-and-not-to-be-found"
HUB = "hf_" + "aB3dE6gH" * 4


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SERVICE_API_KEY", SECRET)


# What a secret is


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"token {HUB}.", "token ***."),
        ("sk-" + "a1B2" * 8, "***"),
        ("key=sk-proj-" + "a1B2" * 10 + "-tail_x", "key=***"),
        ("ghp_" + "a1B2" * 9, "***"),
        ("github_pat_" + "a1B2" * 9, "***"),
        ("an AKIA" + "ABCD2345" * 2 + " key", "an *** key"),
        ("https://me:pass-word@host/x.jsonl", "https://***@host/x.jsonl"),
        ("postgres://me:p%40ss@db:5432", "postgres://***@db:5432"),
        ("export HF_TOKEN=abcdefgh1234", "export HF_TOKEN=***"),
        ('MY_PASSWORD="abcdefgh1234"', 'MY_PASSWORD=***"'),
        ("sk-learn-preference-model-for-judges", None),
        ("hf_internal_testing/tiny", None),
        ("eos_token=endoftext", None),
        ("EOS_TOKEN=<|endoftext|>", None),
        ("export HF_TOKEN=$(cat ~/.token)", None),
        ("export HF_TOKEN=$HF_TOKEN_OF_TEAM", None),
        ("https://host:8080/a@b", None),
        ("git@github.com:a/b", None),
        ("AKIAB", None),
        ("{% if a %}://x:{{ b }} @c", None),
    ],
)
def test_shapes(text: str, left: str | None) -> None:
    assert masked(text) == (text if left is None else left)


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "OPENAI_API_KEY", "A_SECRET", "PASSWORD", "db_passwd", "GOOGLE_CREDENTIALS"]
)
def test_values_of_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert masked(f"a {SECRET} b") == f"a {SECRET} b"
    monkeypatch.setenv(name, SECRET)
    assert masked(f"a {SECRET} b{SECRET}") == "a *** b***"


def test_what_is_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("A_TOKEN", "short")
    monkeypatch.setenv("A_TOKEN_FILE", SECRET)
    monkeypatch.setenv("TOKENIZER", SECRET)
    monkeypatch.setenv("APPLICATION_CREDENTIALS", str(tmp_path))  # a path that exists, as Google's variable holds
    text = f"short {SECRET} {tmp_path}"
    assert masked(text) == text


def test_the_longest_of_two_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "12345678")
    monkeypatch.setenv("B_TOKEN", "12345678-and-more")
    assert masked("x 12345678-and-more 12345678") == "x *** ***"


def test_nested_values(planted: None) -> None:
    value = {"a": [SECRET, 3, None, {SECRET: (1.5, f"x{SECRET}")}]}
    assert masked_values(value) == {"a": ["***", 3, None, {"***": [1.5, "x***"]}]}


def test_a_stream(planted: None) -> None:
    out = io.StringIO()
    stream = MaskedStream(out)
    print("is", SECRET, file=stream, flush=True)
    stream.writelines([f"and {SECRET}\n"])
    assert out.getvalue() == "is ***\nand ***\n"
    assert not stream.isatty()


# Settings are refused: masked, they would be others


@pytest.mark.parametrize(
    "words",
    [
        [f"model.path={SECRET}"],
        ["model.path=https://me:pass-word@host/model"],
        [f"data.train=[{{path: a.jsonl}}, {{path: '{HUB}'}}]"],
        [f"data.eval={{{SECRET}: {{path: a.jsonl}}}}"],
        ["loss=dpo", f"name={SECRET}"],
        [f"model.path={SECRET}", "model.path=other"],  # taken back, and still among the words
        [f"dir=runs/{SECRET}"],
        [f"{SECRET}=1"],
    ],
)
def test_words_with_a_secret(words: list[str], planted: None) -> None:
    with pytest.raises(UserError, match="and a run writes its settings into files") as error:
        compose(words)
    for secret in (SECRET, HUB, "pass-word"):
        assert secret not in str(error.value)


def test_a_recipe_with_a_secret(planted: None, tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text(f"# @package _global_\nmodel:\n  revision: {HUB}\n")
    with pytest.raises(UserError, match=r"^model\.revision \(.*mine\.yaml\) holds a token of the Hugging Face hub"):
        compose(["recipe=mine"], tmp_path)


def test_how_runs_are_started_with_a_secret(planted: None, tmp_path: Path) -> None:
    file = tmp_path / "hydra" / "launcher" / "ours.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# Ours\nname: slurm\npreamble: ['export HF_TOKEN=abcdefgh1234']\n")
    with pytest.raises(UserError, match=r"^hydra\.launcher\.preamble holds an assigned secret"):
        split(["hydra/launcher=ours"], tmp_path)
    with pytest.raises(UserError, match="what the environment variable SOME_SERVICE_API_KEY holds"):
        split(["hydra/launcher=slurm", f"hydra.launcher.account={SECRET}"], None)
    file.write_text("# Ours\nname: slurm\npreamble: ['export HF_TOKEN=$(cat ~/.token)', 'source ~/secrets']\n")
    assert split(["hydra/launcher=ours"], tmp_path)[1].launcher.preamble[1] == "source ~/secrets"


def test_a_sweep_with_a_secret_leaves_nothing(planted: None, tmp_path: Path) -> None:
    words = ["train", "-m", "recipe=quickstart", "train.seed=1,2", f"data.cache_dir={SECRET}"]
    done = command(words, tmp_path, {"SOME_SERVICE_API_KEY": SECRET}, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert "data.cache_dir holds what the environment variable SOME_SERVICE_API_KEY holds" in done.stderr
    assert not (tmp_path / "sweeps").exists()


def test_nested_settings_of_any_kind(planted: None) -> None:
    refuse_secret("a", {"b": [1, None, 2.5, {"c": "fine"}]})
    for value in ({SECRET: 1}, [["x", f"y{SECRET}"]], (SECRET,)):
        with pytest.raises(UserError):
            refuse_secret("a", value)


# Logs


RANK = """
import os, sys
from prefopt.masking import mask_streams
from prefopt.rank_logs import capture
capture()
mask_streams()
print("python says", os.environ["PLANTED"], file=sys.stderr)
os.write(2, b"c says " + os.environ["PLANTED"].encode()[:9])
sys.stdout.flush()
import time; time.sleep(0.02)
os.write(2, os.environ["PLANTED"].encode()[9:] + b"\\n")
raise RuntimeError("dies of " + os.environ["PLANTED"])
"""

COMMAND = """
import os, subprocess, sys
from pathlib import Path
from prefopt import rank_logs
folder = Path(sys.argv[1])
rank_logs.clear(folder)
with rank_logs.shown(folder, range(1)):
    subprocess.run([sys.executable, "-c", sys.argv[2]], env={**os.environ, "PREFOPT_RANK_LOGS": str(folder)})
"""


@pytest.mark.parametrize("name", ["PLANTED_TOKEN", "NO_SECRET_BY_NAME"])
def test_what_ranks_say(name: str, tmp_path: Path) -> None:
    added = {"PLANTED": SECRET, name: SECRET}
    words = [sys.executable, "-c", COMMAND, str(tmp_path), RANK]
    done = subprocess.run(words, cwd=ROOT, env={**environment(tmp_path), **added}, capture_output=True, text=True)
    kept = log_file(tmp_path, 0).read_text()
    for text in (done.stderr, kept):
        is_secret = name == "PLANTED_TOKEN"
        assert (SECRET in text) != is_secret
        shown = "***" if is_secret else SECRET
        for line in (f"python says {shown}", f"c says {shown}", f"RuntimeError: dies of {shown}"):
            assert line in text.splitlines()


def test_what_is_written_down_of_a_death(planted: None, tmp_path: Path) -> None:
    rank_logs.clear(tmp_path)
    log_file(tmp_path, 0).write_text(f"OSError: {SECRET}\n")
    write_death(tmp_path, {0: Death(1)})
    written = (tmp_path / "exit.json").read_text()
    assert SECRET not in written
    assert "OSError: ***" in written


@pytest.mark.slow
def test_what_a_rank_writes_down_itself(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"{SECRET}: 1\n")
    for name, is_secret in (("A_SECRET", True), ("PLAIN", False)):
        (tmp_path / "exit.json").unlink(missing_ok=True)
        added = {**environment(tmp_path), name: SECRET}
        words = [sys.executable, "-m", "prefopt.train", str(tmp_path)]
        done = subprocess.run(words, cwd=ROOT, env=added, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert "there is no such key" in done.stderr
        written = (tmp_path / "exit.json").read_text()
        assert (SECRET in written + done.stderr) != is_secret
        assert ("***" in written) == is_secret


@pytest.mark.parametrize("module", ["prefopt.job", "prefopt.cli"])
def test_what_goes_into_the_log_of_a_job(module: str, tmp_path: Path) -> None:
    note = [str(tmp_path / "note.json")] if module == "prefopt.job" else []
    words = [sys.executable, "-m", module, *note, "train", f"--{SECRET}"]
    for name, is_secret in (("A_SECRET", True), ("PLAIN", False)):
        added = {**environment(tmp_path), name: SECRET}
        done = subprocess.run(words, cwd=ROOT, env=added, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert f"there is no option --{'***' if is_secret else SECRET}" in done.stderr
        assert (SECRET in done.stdout + done.stderr) != is_secret


def test_the_record_of_a_start(planted: None) -> None:
    record = start_record(["prefopt", "train", "--config-dir", f"/home/{SECRET}"], {"device": "cpu"})
    assert record["command"] == ["prefopt", "train", "--config-dir", "/home/***"]


# A whole run


def command(words: list[str], cache: Path, added: dict[str, str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    env = {**environment(cache), "PYTHONPATH": str(ROOT), **added}
    return subprocess.run(
        [sys.executable, "-m", "prefopt.cli", *words], cwd=cwd, env=env, capture_output=True, text=True
    )


def holding(folder: Path, secret: str) -> set[str]:
    """The files under `folder` with `secret` among their bytes or in their names."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {
        file.relative_to(folder).as_posix()
        for file in files
        if secret.encode() in file.read_bytes() or secret in file.name
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PLANTED_TOKEN", "NO_SECRET_BY_NAME"])
def test_no_byte_of_a_run_folder_holds_the_secret(name: str, tmp_path: Path) -> None:
    """In the environment, on the command line, and in a row that is left out; by another name it would be there."""
    model, pairs = make_model(tmp_path / "model"), make_pairs(tmp_path / "pairs.jsonl")
    rows = [{**json.loads(line), "score_chosen": 1, "score_rejected": 0} for line in pairs.read_text().splitlines()]
    rows.append({**rows[0], "score_chosen": SECRET})
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipes = tmp_path / SECRET
    recipes.mkdir()
    more = [
        "train.max_steps=2",
        "train.save_every=1",
        "sample.count=1",
        "sample.max_new_tokens=4",
        "tracker=tensorboard",
    ]
    words = ["train", "--config-dir", str(recipes), *overrides(model, pairs, tmp_path / "run", *more)]
    added = {name: SECRET, "HF_TOKEN": HUB}
    done = command([*words, "--dry-run"], tmp_path / "cache", added)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    done = command(words, tmp_path / "cache", added)
    assert done.returncode == 0, done.stderr
    said += done.stdout + done.stderr
    found = holding(tmp_path / "run", SECRET)
    if name == "PLANTED_TOKEN":
        assert not found
        assert SECRET not in said
    else:
        assert found == {"manifest.json", "left_out.jsonl", "model/README.md"}
    assert not holding(tmp_path / "run", HUB)
    assert HUB not in said
    assert "***" in (tmp_path / "run" / "manifest.json").read_text() or name != "PLANTED_TOKEN"
    # Names from outside that might lead elsewhere: nothing was written beside the folders of the run and the cache.
    assert sorted(os.listdir(tmp_path)) == sorted(["model", "pairs.jsonl", SECRET, "run", "cache"])
