"""How runs are started: files that state their defaults, words that are refused, and no trace of it in the run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from prefopt.cli import main
from prefopt.config import compose
from prefopt.errors import UserError
from prefopt.recipe_files import START_GROUPS, choices, packaged, search_path
from prefopt.sweeps.groups import record, split
from prefopt.sweeps.settings import SCHEMAS, LocalGpusSettings, OptunaSettings

CHOICES = [(group, name) for group in START_GROUPS for name in choices(group, search_path())]


@pytest.mark.parametrize(("group", "name"), CHOICES, ids=["=".join(choice) for choice in CHOICES])
def test_file_states_the_schemas_keys_and_defaults(group: str, name: str) -> None:
    stated = yaml.safe_load((packaged() / group / f"{name}.yaml").read_text(encoding="utf-8"))
    assert stated == asdict(SCHEMAS[group][name]())


def test_every_schema_has_a_file() -> None:
    assert {(group, name) for group in SCHEMAS for name in SCHEMAS[group]} == set(CHOICES)


def test_words_are_split_and_leave_no_trace_in_the_run() -> None:
    words = ["recipe=quickstart", "hydra/launcher=local_gpus", "+hydra.launcher.jobs=3", "hydra.sweeper.metric='a'"]
    of_run, starting = split(words, None)
    assert of_run == ["recipe=quickstart"]
    assert starting.launcher == LocalGpusSettings(jobs=3)
    assert starting.sweeper.metric == "a"
    assert starting.given == {"hydra/launcher", "hydra/sweeper"}
    assert compose(of_run) == compose(["recipe=quickstart"])


def test_recorded_settings_hold_where_the_words_choose_no_other_file() -> None:
    _, before = split(["hydra/launcher=local_gpus", "hydra.launcher.jobs=3", "hydra/sweeper=optuna"], None)
    assert split([], None, record(before))[1].launcher == before.launcher
    _, again = split(["hydra.launcher.gpus_per_job=2"], None, record(before))
    assert again.launcher == LocalGpusSettings(jobs=3, gpus_per_job=2)
    assert again.sweeper == OptunaSettings()
    assert split(["hydra/launcher=local"], None, record(before))[1].launcher.name == "local"


def test_a_value_of_the_wrong_kind_is_not_answered_with_every_key() -> None:
    with pytest.raises(UserError) as caught:
        split(["hydra/launcher=slurm", "hydra.launcher.mem_gb=16G"], None)
    assert caught.value.message == ("hydra.launcher.mem_gb: expected a number, got text '16G' (hydra/launcher=slurm)")
    assert not caught.value.hint


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("launcher=slurm", "did you mean hydra/launcher=slurm?"),
        ("sweeper=optuna", "did you mean hydra/sweeper=optuna?"),
        ("launcher.partition=gpu", "did you mean hydra.launcher.partition?"),
    ],
)
def test_a_start_group_without_hydra_is_answered_with_it(word: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        compose(["recipe=quickstart", word])
    assert caught.value.hint == hint


def test_a_file_of_ones_own_says_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "hydra" / "launcher"
    folder.mkdir(parents=True)
    (folder / "ours.yaml").write_text("# Ours\nname: local_gpus\njobs: ${oc.env:OUR_JOBS}\n")
    (folder / "broken.yaml").write_text("jobs: 2\n")
    monkeypatch.setenv("OUR_JOBS", "4")
    with pytest.raises(UserError, match=r"jobs: expected a whole number, got text '4'"):
        split(["hydra/launcher=ours"], tmp_path)
    assert split(["hydra/launcher=ours", "hydra.launcher.jobs=5"], tmp_path)[1].launcher == LocalGpusSettings(jobs=5)
    with pytest.raises(UserError, match="must say name: local or local_gpus"):
        split(["hydra/launcher=broken"], tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra/launcher=local_gpu"], "did you mean 'local_gpus'?"),
        (["hydra/launcher=local_gpus", "hydra.launcher.job=2"], "did you mean 'jobs'?"),
        (["hydra.launcher.jobs=2"], "hydra/launcher=local_gpus has it"),
        (["hydra/launcher=local_gpus", "hydra.launcher.jobs=many"], "expected a whole number"),
        (["hydra/launcher=local_gpus", "hydra.launcher.jobs.x=1"], "there is no such key"),
        (["hydra.launcher.name=local_gpus"], "hydra/launcher=local_gpus"),
        (["hydra.launcher.jobs=1,2"], "not swept over"),
        (["hydra.run.dir=x"], "no such setting of how runs are started"),
        (["~hydra.launcher.jobs"], "cannot be read"),
        (["hydra/launcher=null"], "takes the name of a file"),
        (["hydra.sweeper.direction=up"], "must be one of auto, minimize, maximize"),
        (["hydra/launcher=local_gpus"], "has no effect on one run"),
        (["hydra/sweeper=random"], "has no effect on one run"),
        (["-m", "hydra/launcher=local_gpus", "loss.lam=1,2"], "on CPU it must be said how many"),
        (["-m", "hydra/launcher=local_gpus", "hydra.launcher.jobs=0", "loss.lam=1,2"], "must be 1 or more"),
        (["-m", "hydra/launcher=local_gpus", "hydra.launcher.gpus_per_job=2", "loss.lam=1,2"], "has no effect"),
        (["-m", "hydra/sweeper=random", "hydra.sweeper.n_trials=0", "loss.lam=interval(1,2)"], "must be 1 or more"),
        (["-m", "hydra/sweeper=optuna", "loss.lam=interval(1,2)"], "needs a metric"),
        (["-m", "hydra.sweeper.direction=minimize", "loss.lam=1,2"], "no effect without hydra.sweeper.metric"),
        (["-m", "hydra.sweeper.metric=eval/holdout/loss", "loss.lam=1,2"], "did you mean 'eval/heldout/loss'?"),
        (["-m", "hydra.sweeper.metric=a", "train.eval_every=never", "loss.lam=1,2"], "evaluate nothing"),
    ],
)
def test_misuse_is_explained_before_anything_is_written(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert main(["train", "recipe=quickstart", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["statu"], "did you mean 'status'?"),
        (["status"], "there is no sweep here"),
        (["status", "nowhere"], "is no sweep"),
        (["status", "hydra/launcher=local"], "changes nothing"),
        (["retry"], "--failed for those that failed, --job N for one"),
        (["retry", "--failed", "--job", "3"], "--failed has no effect beside --job"),
        (["resume", "--job", "3"], "there is no option --job"),
        (["resume", "a", "b"], "one sweep at a time"),
        (["resume", "--json"], "there is no option --json"),
    ],
)
def test_misuse_of_the_sweep_command_is_explained(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *words]) == 2
    assert said in capsys.readouterr().err


def test_dry_run_lists_what_would_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "-m", "--dry-run", "recipe=quickstart", "loss.lam=interval(0.1,1)"]
    assert main([*words, "hydra/sweeper=random", "hydra.sweeper.n_trials=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["job 1", "job 2", "job 3"]
    assert main([*words, "hydra/sweeper=optuna", "hydra.sweeper.metric=eval/heldout/loss"]) == 0
    assert "one of the 20 runs that Optuna will choose" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
