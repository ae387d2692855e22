"""Sweeps: what varies, what is refused before anything starts, and what the table says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from prefopt.errors import UserError
from prefopt.sweep import Job, expand, headline_metrics, plan_jobs, sweep_name, table

QUICKSTART = "recipe=quickstart"


def test_expansion_is_the_product_in_order() -> None:
    jobs = expand([QUICKSTART, "loss.lam=0.1,0.2", "train.seed=1,2"])
    assert [varied for _, varied in jobs] == [
        ["loss.lam=0.1", "train.seed=1"],
        ["loss.lam=0.1", "train.seed=2"],
        ["loss.lam=0.2", "train.seed=1"],
        ["loss.lam=0.2", "train.seed=2"],
    ]
    assert all(everything[0] == QUICKSTART for everything, _ in jobs)


def test_groups_and_ranges_can_be_swept_and_lists_are_values() -> None:
    assert [varied for _, varied in expand(["loss=orpo,simpo"])] == [["loss=orpo"], ["loss=simpo"]]
    assert [varied for _, varied in expand(["train.seed=range(1,4)"])] == [[f"train.seed={n}"] for n in (1, 2, 3)]
    assert len(expand(["optim.betas=[0.9,0.95],[0.8,0.9]"])) == 2


@pytest.mark.parametrize("overrides", [[QUICKSTART], ["loss.lam=interval(0,1)"], ["loss=glob(*)"]])
def test_what_cannot_be_listed_is_refused(overrides: list[str]) -> None:
    with pytest.raises(UserError):
        expand(overrides)


def test_every_bad_job_is_named_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        plan_jobs([QUICKSTART, "loss.lam=0.1,-1,-2"], None)
    message = str(caught.value)
    assert "job 2 (loss.lam=-1)" in message
    assert "job 3 (loss.lam=-2)" in message
    assert "job 1" not in message
    assert list(tmp_path.iterdir()) == []


def test_each_job_has_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jobs, _ = plan_jobs([QUICKSTART, "loss.lam=0.1,0.2"], None)
    assert len({job.dir for job in jobs}) == 2
    assert [job.state for job in jobs] == ["waiting", "waiting"]
    again, _ = plan_jobs([QUICKSTART, "loss.lam=0.2,0.1"], None)
    assert sweep_name(again).startswith("quickstart-")
    assert sweep_name(again) == sweep_name(jobs)


@pytest.mark.parametrize("overrides", [["loss.lam=0.1,0.10"], ["loss.lam=0.1,0.2", "dir=here"]])
def test_jobs_that_share_a_folder_are_refused(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="has the folder of job 1"):
        plan_jobs([QUICKSTART, *overrides], None)


def test_done_job_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import asdict

    import yaml

    from prefopt.config import compose
    from prefopt.manifest import new_manifest

    monkeypatch.chdir(tmp_path)
    run = compose([QUICKSTART, "loss.lam=0.1"])
    folder = tmp_path / run.dir
    folder.mkdir(parents=True)
    world = {"device": "cpu", "num_processes": 1}
    (folder / "manifest.json").write_text(json.dumps(new_manifest(asdict(run), "id", "f", world, [])))
    (folder / "run.yaml").write_text(yaml.safe_dump(asdict(run)))
    (folder / "result.json").write_text(json.dumps({"metrics": {"eval/heldout/loss": 0.5}}))
    jobs, _ = plan_jobs([QUICKSTART, "loss.lam=0.1,0.2"], None)
    assert [(job.state, job.metrics) for job in jobs] == [("done", {"eval/heldout/loss": 0.5}), ("waiting", {})]


def test_table_names_state_error_and_metrics_of_every_job() -> None:
    jobs = [
        Job(1, [], ["loss.lam=0.1"], "a", "r/a", "job-1.log", "done", 0, "", {"eval/heldout/rewards/accuracy": 0.75}),
        Job(2, [], ["loss.lam=0.2"], "b", "r/b", "job-2.log", "failed", 1, "disk [full]"),
    ]
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(jobs))
    text = console.export_text()
    for said in ("loss.lam=0.1", "done", "0.75", "loss.lam=0.2", "failed", "disk [full]", "job-2.log"):
        assert said in text


def test_headline_metrics_are_of_the_first_evaluation_set() -> None:
    metrics = {"eval/a/loss": 1.0, "eval/a/rewards/accuracy": 0.5, "eval/b/loss": 2.0, "eval/a/logps/chosen": -3.0}
    assert headline_metrics(metrics) == {"loss": 1.0, "rewards/accuracy": 0.5}
    assert headline_metrics({}) == {}
