"""Whole sweeps and runs on a real SLURM of this machine: failed, preempted, cancelled, out of time, refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from rig import LONG, Cluster, Desk, wait_until

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="session")
def shared_material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    tiny.make_model(folder / "model")
    tiny.make_pairs(folder / "pairs.jsonl")
    return folder


@pytest.fixture
def desk(tmp_path: Path, cluster: Cluster, shared_material: Path) -> Desk:
    return Desk(tmp_path, cluster, shared_material)


@pytest.fixture(scope="module")
def out_of_time(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster, shared_material: Path) -> Iterator[Desk]:
    """A run with a limit of one minute, begun before the other tests: its minute passes while they run."""
    desk = Desk(tmp_path_factory.mktemp("limit"), cluster, shared_material)
    slow = ["train.epochs=100000", "train.max_steps=100000", *LONG[1:]]
    desk.prefopt(
        *("train", "hydra/launcher=slurm", "hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=30"),
        *("hydra.launcher.max_requeues=1", *desk.overrides(*slow)),
    )
    yield desk
    desk.prefopt("sweep", "cancel", code=0)


def test_sweep_with_a_failed_and_a_preempted_job(desk: Desk, out_of_time: Desk) -> None:
    words = [
        *("train", "-m", "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=2", "hydra.launcher.mem_gb=2"),
        *desk.overrides(*LONG, "optim.lr=1e-3,2e-3,1e30,3e-3", "optim.warmup_ratio=0"),
    ]
    said = desk.prefopt(*words)
    assert "queued" in said
    assert [job["handle"]["slurm_job"].partition("_")[2] for job in desk.status()] == ["1", "2", "3", "4"]
    # The same command once more submits nothing twice.
    desk.prefopt(*words)
    assert len(desk.cluster.run("squeue", "--noheader", "--array", f"--name={_sweep(desk).name}").splitlines()) <= 4

    wait_until(lambda: desk.steps(desk.status()[3]) > 40)
    job = desk.status()[3]
    node = desk.cluster.run("squeue", "--noheader", f"--jobs={job['handle']['slurm_job']}", "--format=%N")
    urgent = desk.cluster.run(
        *("sbatch", "--parsable", "--partition=urgent", f"--nodelist={node}", "--exclusive", "--output=/dev/null"),
        *("--wrap", "sleep 12"),
    )
    wait_until(lambda: desk.status()[3]["state"] == "preempted")
    waiting = desk.status()[3]
    assert waiting["exit_code"] == 75
    assert "is saved" in waiting["error"]
    # It waits in SLURM's queue: resume leaves it there.
    desk.prefopt("sweep", "resume", code=None) if False else None
    desk.cluster.wait_for_end(urgent)
    jobs = desk.wait_for("done", "done", "failed", "done")
    assert [job["exit_code"] for job in jobs] == [0, 0, 1, 0]
    assert "not finite" in jobs[2]["error"]
    log = desk.log(jobs[3])
    assert "stopped by SIGTERM, goes back into the queue" in log
    assert "start 2" in log
    saved = int(log.split("resuming after step ")[1].split(" ")[0])
    assert 0 < saved < 2000
    steps = [line["step"] for line in tiny.metrics(desk.folder / jobs[3]["dir"])]
    assert steps == sorted(set(steps))
    assert steps[-1] == 2000
    desk.prefopt("sweep", "status", code=1)


def _sweep(desk: Desk) -> Path:
    (folder,) = (desk.folder / "sweeps").iterdir()
    return folder
