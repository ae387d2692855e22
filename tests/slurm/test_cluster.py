"""Whole sweeps and runs on a real SLURM of this machine: failed, preempted, cancelled, out of time, refused."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from rig import LONG, Cluster, Desk, wait_until

pytestmark = [pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, pairs, and a cache that all runs share."""
    folder = tmp_path_factory.mktemp("material")
    tiny.make_model(folder / "model")
    tiny.make_pairs(folder / "pairs.jsonl")
    return folder


@pytest.fixture
def desk(tmp_path: Path, cluster: Cluster, material: Path) -> Desk:
    return Desk(tmp_path, cluster, material)


@pytest.fixture(scope="module", autouse=True)
def out_of_time(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster, material: Path) -> Iterator[Desk]:
    """A run with a limit of three minutes, begun before the other tests: its time passes while they run."""
    desk = Desk(tmp_path_factory.mktemp("limit"), cluster, material)
    desk.prefopt(
        *("train", "hydra/launcher=slurm", "hydra.launcher.timeout_min=3", "hydra.launcher.signal_delay_s=30"),
        *desk.overrides(*LONG, "train.epochs=100000", "optim.schedule=constant"),
    )
    yield desk
    desk.prefopt("sweep", "cancel")


def test_sweep_with_a_failed_and_a_preempted_job(desk: Desk) -> None:
    words = [
        *("train", "-m", "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=2", "hydra.launcher.mem_gb=2"),
        *desk.overrides(*LONG, "optim.lr=1e-3,2e-3,1e30,3e-3", "optim.warmup_ratio=0"),
    ]
    assert "done" not in desk.prefopt(*words)  # it does not wait for them
    desk.prefopt(*words)  # the same command once more submits nothing twice
    (sweep,) = (desk.folder / "sweeps").iterdir()
    assert len(list(sweep.glob("slurm-*.sh"))) == 1

    job = desk.status()[3]
    wait_until(lambda: desk.steps(job) > 40)
    node = desk.cluster.run("squeue", "--noheader", f"--jobs={job['handle']['slurm_job']}", "--format=%N")
    urgent = desk.cluster.run(
        *("sbatch", "--parsable", "--partition=urgent", f"--nodelist={node}", "--exclusive", "--output=/dev/null"),
        *("--wrap", "sleep 15"),
    )
    wait_until(lambda: desk.status()[3]["state"] == "preempted")
    waiting = desk.status()[3]
    assert waiting["exit_code"] == 75
    assert "is saved" in waiting["error"]
    # The failed one is submitted again. SLURM will run this one again by itself.
    said = desk.prefopt("sweep", "resume", code=75)
    assert desk.status()[3]["handle"]["slurm_job"] == job["handle"]["slurm_job"]
    assert "failed" not in said
    desk.cluster.wait_for_end(urgent)

    jobs = desk.wait_for("done", "done", "failed", "done")
    assert [job["exit_code"] for job in jobs] == [0, 0, 1, 0]
    assert "not finite" in jobs[2]["error"]
    log = desk.log(jobs[3])
    assert "stopped by SIGTERM, goes back into the queue" in log
    assert "start 2" in log
    assert 0 < int(log.split("resuming after step ")[1].split(" ")[0]) < 800
    steps = [line["step"] for line in tiny.metrics(desk.folder / jobs[3]["dir"]) if "loss" in line]
    assert steps == sorted(set(steps))
    assert steps[-1] == 800
    assert "3 done" in desk.prefopt("sweep", "status", code=1)

    assert desk.log(jobs[2]).count("prefopt job starts") == 2


def test_two_nodes_give_the_numbers_of_one_process(desk: Desk) -> None:
    desk.prefopt(
        "train", "hydra/launcher=slurm", "hydra.launcher.nodes=2", *desk.overrides("launch.num_processes=null")
    )
    alone = desk.folder / "alone"
    desk.prefopt("train", *desk.overrides(f"dir={alone}"))
    (job,) = desk.wait_for("done")
    assert "2 nodes" in desk.log(job)
    one, two = tiny.metrics(alone), tiny.metrics(desk.folder / job["dir"])
    assert len(one) == len(two) > 16
    for ours, theirs in zip(one, two, strict=True):
        for key in ("loss", "grad_norm", "eval/heldout/loss"):
            assert (key in ours) == (key in theirs)
            assert ours.get(key, 0.0) == pytest.approx(theirs.get(key, 0.0), rel=1e-5)


@pytest.mark.long
def test_cancel_and_resume_without_accounting(tmp_path: Path, plain_cluster: Cluster, material: Path) -> None:
    desk = Desk(tmp_path, plain_cluster, material)
    assert subprocess.run(["sacct"], env=plain_cluster.environment, capture_output=True).returncode != 0
    desk.prefopt(
        *("train", "-m", "hydra/launcher=slurm", "hydra.launcher.array_parallelism=1"),
        *desk.overrides(*LONG, "train.seed=1,2"),
    )
    job = desk.status()[0]
    wait_until(lambda: desk.steps(job) > 40)
    assert desk.states() == ["running", "queued"]
    assert [job["handle"]["slurm_job"] in desk.prefopt("sweep", "status") for job in desk.status()] == [True, True]
    assert "stopped: job 2\n" in desk.prefopt("sweep", "cancel", "--job", "2")
    assert desk.states() == ["running", "preempted"]
    assert "stopped: job 1\njob 1 saves first" in desk.prefopt("sweep", "cancel")
    jobs = desk.wait_for("preempted", "preempted", seconds=60)
    assert [job["exit_code"] for job in jobs] == [75, 75]
    assert "is saved" in jobs[0]["error"]
    assert "stopped by prefopt sweep cancel; " in jobs[0]["error"]
    assert jobs[1]["error"] == "stopped by prefopt sweep cancel before it began"
    assert not plain_cluster.run("squeue", "--noheader")  # not put back into the queue
    desk.prefopt("sweep", "status", code=75)
    desk.prefopt("sweep", "resume")
    jobs = desk.wait_for("done", "done")
    assert "resuming after step" in desk.log(jobs[0])
    assert "resuming after step" not in desk.log(jobs[1])


@pytest.mark.long
def test_what_limits_or_mistakes_keep_out(desk: Desk) -> None:
    def limit(number: int) -> None:
        user = desk.cluster.run("id", "-un")
        desk.cluster.run("sacctmgr", "-i", "modify", "user", user, "set", f"maxsubmitjobs={number}")

    short = desk.overrides("train.max_steps=2", "train.eval_every=never")
    there = len(desk.cluster.run("squeue", "--noheader", "--array").splitlines())
    limit(there + 2)
    try:
        said = desk.prefopt("train", "-m", "hydra/launcher=slurm", *short, "train.seed=1,2,3", code=1)
    finally:
        limit(-1)
    assert "1 of 3 jobs were not submitted: sbatch: AssocMaxSubmitJobLimit" in said
    refused = desk.status()[2]
    assert (refused["state"], refused["handle"]) == ("queued", {})
    assert "AssocMaxSubmitJobLimit" in refused["error"]
    desk.prefopt("sweep", "resume")
    jobs = desk.wait_for("done", "done", "done")
    assert len({job["handle"]["slurm_job"] for job in jobs}) == 3

    words = ["train", "hydra/launcher=slurm", "hydra.launcher.partition=nowhere", *short, "train.seed=4"]
    said = desk.prefopt(*words, code=1)
    assert said.splitlines()[-2].startswith("prefopt: sbatch: ")
    assert said.splitlines()[-1] == "  hydra.launcher.partition=nowhere: `sinfo` lists the partitions"
    assert "Invalid partition name specified" in said
    (job,) = desk.status()
    assert (job["state"], job["handle"]) == ("queued", {})
    assert not (desk.folder / job["dir"]).exists()
    desk.prefopt("sweep", "resume", "hydra.launcher.partition=batch")
    assert desk.wait_for("done")


def test_scripts_submitted_by_hand_and_a_recipe_that_changed(desk: Desk) -> None:
    words = ["--sbatch-only", "hydra.launcher.mem_gb=2", *desk.overrides("train.max_steps=2", "dir=by_hand")]
    script = desk.folder / "job.sh"
    script.write_text(desk.prefopt("train", *words))
    by_hand = desk.cluster.run("sbatch", "--parsable", str(script), cwd=desk.folder)
    # The very script that is submitted.
    desk.prefopt("train", "hydra/launcher=slurm", *words[1:-1], "dir=by_prefopt")
    (submitted,) = desk.folder.glob("sweeps/*/slurm-*.sh")
    name = submitted.parent.name
    assert submitted.read_text().replace(name, "X").replace("by_prefopt", "by_hand") == script.read_text().replace(
        next(d.name for d in desk.folder.glob("sweeps/*") if d.name != name), "X"
    )

    plain = subprocess.run(
        [
            *("sbatch", "--parsable", "--nodes=1", "--gpus-per-node=0", "--cpus-per-task=1", "--time=5"),
            *(ROOT / "scripts" / "slurm" / "train.sbatch", *desk.overrides("train.max_steps=2", "dir=plain")),
        ],
        env=desk.environment,
        cwd=desk.folder,
        capture_output=True,
        text=True,
    )
    assert plain.returncode == 0, plain.stderr

    recipes = desk.folder / "mine" / "recipe"
    recipes.mkdir(parents=True)
    recipe = "# @package _global_\noptim:\n  lr: {}\n"
    (recipes / "own.yaml").write_text(recipe.format("1e-3"))
    desk.prefopt(
        *("train", "hydra/launcher=slurm", "hydra.launcher.sbatch={hold: true}", "--config-dir", "mine", "recipe=own"),
        *(word for word in desk.overrides("train.max_steps=2") if not word.startswith("optim.lr")),
    )
    (job,) = desk.status()
    assert (job["state"], "JobHeldUser" in job["error"]) == ("queued", True)
    (recipes / "own.yaml").write_text(recipe.format("2e-3"))
    desk.cluster.run("scontrol", "release", job["handle"]["slurm_job"])
    desk.cluster.wait_for_end(by_hand, plain.stdout.strip(), job["handle"]["slurm_job"])
    assert (desk.folder / "by_hand" / "result.json").exists()
    assert (desk.folder / "plain" / "result.json").exists()
    (job,) = desk.wait_for("failed")
    assert job["exit_code"] == 2
    assert "a recipe was changed since this job was submitted" in job["error"]


def test_time_limit_and_a_cancel_by_hand(out_of_time: Desk) -> None:
    desk = out_of_time
    (job,) = desk.status()
    wait_until(lambda: "resuming after step" in desk.log(job), 400)
    assert "stopped by SIGUSR2, goes back into the queue" in desk.log(job)
    desk.cluster.run("scancel", job["handle"]["slurm_job"])
    (job,) = desk.wait_for("preempted", seconds=60)
    desk.cluster.wait_for_end(job["handle"]["slurm_job"], seconds=30)
    assert job["exit_code"] in (75, 143)  # 143: caught before the first step of its start
    assert "stopped by SIGTERM while SLURM ends the job" in desk.log(job)
    assert not desk.cluster.run("squeue", "--noheader", f"--jobs={job['handle']['slurm_job']}")
