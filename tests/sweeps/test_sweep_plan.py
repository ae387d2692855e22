"""Sweeps: what varies, what is refused before anything starts, and what the table says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from prefopt.errors import UserError
from prefopt.sweeps.jobs import Job
from prefopt.sweeps.local import LocalLauncher
from prefopt.sweeps.plan import expand, sweep_name
from prefopt.sweeps.plan import plan_jobs as plan
from prefopt.sweeps.space import read_space
from prefopt.sweeps.table import next_step, show_jobs, shown_metrics, summary, table

QUICKSTART = "recipe=quickstart"


def plan_jobs(words: list[str]) -> list[Job]:
    return plan(expand(words), None, LocalLauncher())[0]


def test_expansion_is_the_product_in_order() -> None:
    jobs = expand([QUICKSTART, "loss.lam=0.1,0.2", "train.seed=1,2"])
    assert [job.varied for job in jobs] == [
        ["loss.lam=0.1", "train.seed=1"],
        ["loss.lam=0.1", "train.seed=2"],
        ["loss.lam=0.2", "train.seed=1"],
        ["loss.lam=0.2", "train.seed=2"],
    ]
    assert all(job.overrides[0] == QUICKSTART for job in jobs)


def test_groups_and_ranges_can_be_swept_and_lists_are_values() -> None:
    assert [job.varied for job in expand(["loss=orpo,simpo"])] == [["loss=orpo"], ["loss=simpo"]]
    assert [job.varied for job in expand(["train.seed=range(1,4)"])] == [[f"train.seed={n}"] for n in (1, 2, 3)]
    assert len(expand(["optim.betas=[0.9,0.95],[0.8,0.9]"])) == 2


@pytest.mark.parametrize("overrides", [[QUICKSTART], ["loss.lam=interval(0,1)"], ["loss=glob(*)"]])
def test_what_cannot_be_listed_is_refused(overrides: list[str]) -> None:
    with pytest.raises(UserError):
        expand(overrides)


def test_every_bad_job_is_named_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        plan_jobs([QUICKSTART, "loss.lam=0.1,-1,-2"])
    message = str(caught.value)
    assert "job 2 (loss.lam=-1)" in message
    assert "job 3 (loss.lam=-2)" in message
    assert "job 1" not in message
    assert list(tmp_path.iterdir()) == []


def test_each_job_has_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = plan_jobs([QUICKSTART, "loss.lam=0.1,0.2"])
    assert len({job.dir for job in jobs}) == 2
    assert [job.state for job in jobs] == ["queued", "queued"]
    again = plan_jobs([QUICKSTART, "loss.lam=0.2,0.1"])
    assert sweep_name(again).startswith("quickstart-")
    assert sweep_name(again) == sweep_name(jobs)


@pytest.mark.parametrize("overrides", [["loss.lam=0.1,0.10"], ["loss.lam=0.1,0.2", "dir=here"]])
def test_jobs_that_share_a_folder_are_refused(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="has the folder of job 1"):
        plan_jobs([QUICKSTART, *overrides])


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
    jobs = plan_jobs([QUICKSTART, "loss.lam=0.1,0.2"])
    assert [(job.state, job.metrics) for job in jobs] == [("done", {"eval/heldout/loss": 0.5}), ("queued", {})]


def test_table_names_state_error_and_metrics_of_every_job() -> None:
    accuracy = "eval/heldout/rewards/accuracy"
    jobs = [
        Job(
            1, [], ["loss.lam=0.1"], "a", "r/a", log="s/job-1.log", state="done", exit_code=0, metrics={accuracy: 0.75}
        ),
        Job(2, [], ["loss.lam=0.2"], "b", "r/b", log="s/job-2.log", state="failed", exit_code=1, error="disk [full]"),
        Job(3, [], ["loss.lam=0.3"], "c", "r/c", log="s/job-3.log", state="done", exit_code=0, metrics={accuracy: 0.5}),
    ]
    for metric in (None, accuracy):
        console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(table(jobs, metric))
        text = console.export_text()
        for said in ("loss.lam=0.1", "done", "0.75", "loss.lam=0.2", "failed", "disk [full]", "job-2.log"):
            assert said in text
    assert summary(jobs, None, "maximize") == "2 done, 1 failed"
    assert summary(jobs, accuracy, "maximize").endswith(f"most {accuracy}: 0.75, job 1 (loss.lam=0.1)")
    assert "job 3" in summary(jobs, accuracy, "minimize")


def test_a_run_that_was_done_before_the_sweep_names_no_log_of_it() -> None:
    done, queued = (
        Job(n, [], [], "a", "r/a", log=f"s/job-{n}.log", state=state) for n, state in ((1, "done"), (2, "queued"))
    )
    made_here = Job(3, [], [], "c", "r/c", log="s/job-3.log", state="done", handle={"pid": 1})
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table([done, queued, made_here], None))
    text = console.export_text()
    assert "done before" in text
    assert "job-3.log" in text
    assert "job-1.log" not in text
    assert "job-2.log" not in text


def test_a_sweep_that_is_not_done_names_the_next_command() -> None:
    folder = Path("sweeps/a")

    def said(*states: str, live: int = 0) -> str:
        jobs = [Job(n, [], [], "a", "r/a", state=state) for n, state in enumerate(states, start=1)]
        jobs += [Job(9, [], [], "b", "r/b", state="running", handle={"pid": 1})] * live
        return next_step(jobs, folder)

    assert said("done", "done") == ""
    assert said("done", "failed", live=1) == ""
    assert said("done", "preempted", "lost") == "next: prefopt sweep resume sweeps/a"
    first, second = said("done", "failed").splitlines()
    assert first == "next: prefopt sweep retry --failed sweeps/a"
    assert "mend it and give the same prefopt train -m again" in second
    assert "retry --failed sweeps/a; prefopt sweep resume sweeps/a starts the others too" in said("failed", "queued")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_an_error_that_has_no_room_in_the_table_is_one_line_below_it_with_its_log(width: int) -> None:
    error = "sbatch: Batch job submission failed: Invalid generic resource (gres) specification, and more of the like"
    metrics = {f"eval/heldout/{name}": 0.5 for name in ("loss", "rewards/accuracy", "rewards/margin")}
    handle = {"slurm_job": "123456_1"}
    jobs = [
        Job(1, [], ["loss.lam=0.1"], "a", "r/a", log="s/job-1.log", state="done", exit_code=0, metrics=metrics),
        Job(2, [], ["loss.lam=0.2"], "b", "r/b", log="s/job-2.log", state="failed", exit_code=1, error=error),
        Job(3, [], ["loss.lam=0.3"], "c", "r/c", log="s/job-3.log", state="running", handle=handle),
    ]
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show_jobs(console, jobs, None)
    lines = console.export_text().splitlines()
    assert lines[-1] == f"job 2: {error} (log: s/job-2.log)"
    assert all(len(line) <= width for line in lines[:-1])
    assert any("123456_1" in line and "running" in line for line in lines) or width == 60
    assert sum("job-" in line for line in lines) == 1


def test_shown_metrics_are_the_named_one_or_of_the_first_evaluation_set() -> None:
    metrics = {"eval/a/loss": 1.0, "eval/a/rewards/accuracy": 0.5, "eval/b/loss": 2.0, "eval/a/logps/chosen": -3.0}
    assert shown_metrics(metrics, None) == {"loss": 1.0, "rewards/accuracy": 0.5}
    assert shown_metrics(metrics, "eval/b/loss") == {"eval/b/loss": 2.0}
    assert shown_metrics({}, None) == {}


WORDS = ["name=x", "loss.lam=tag(log,interval(0.01,1))", "train.seed=int(interval(1,9))", "loss=orpo,simpo"]


def test_random_draws_are_a_function_of_the_seed() -> None:
    space = read_space(WORDS)
    ten = space.draw(10, 1)
    assert space.draw(10, 1) == ten
    assert space.draw(4, 1) == ten[:4]
    assert not {tuple(run.varied) for run in space.draw(10, 2)} & {tuple(run.varied) for run in ten}
    for run in ten:
        lam, seed, loss = (word.partition("=")[2] for word in run.varied)
        assert run.overrides == ["name=x", *run.varied]
        assert 0.01 <= float(lam) <= 1
        assert 1 <= int(seed) <= 9
        assert loss in ("orpo", "simpo")
    below = sum(float(run.varied[0].partition("=")[2]) < 0.1 for run in space.draw(200, 1))
    assert 70 < below < 130  # half of the logarithm


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["name=x"], "no key varies"),
        (["loss=glob(*)"], "cannot be drawn from"),
        (["loss.lam=interval(0,1),interval(2,3)"], "cannot be drawn from"),
        (["loss.lam=tag(log,interval(0,1))"], "above 0"),
        (["loss.lam=tag(log,range(1,3))"], "tag log has no effect"),
        (["loss.lam=interval(1,1)"], "from a smaller to a larger"),
        (["loss.lam=shuffle(1,2)"], "shuffle has no effect"),
    ],
)
def test_what_cannot_be_drawn_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        read_space(words)


def test_more_draws_than_there_are_runs_are_refused() -> None:
    space = read_space(["loss.lam=0.1,0.2", "train.seed=range(1,3)"])
    assert len({tuple(run.varied) for run in space.draw(4, 0)}) == 4
    with pytest.raises(UserError, match="only 4 different runs"):
        space.draw(5, 0)
