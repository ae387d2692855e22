"""The batch script: what it says to SLURM, and that its words come through whole; no SLURM is needed here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from prefopt.config import compose
from prefopt.errors import UserError
from prefopt.slurm.check import check_slurm, fitted_to, world_of
from prefopt.slurm.script import Entry, batch_script
from prefopt.sweeps.settings import SlurmSettings

WORDS = ["train", "data.train=[{path: 'a b.jsonl', limit: 3}]", "name=it's $HOME", 'model.path="x\\y"']
FOLDER = Path("sweeps/two words")


MANY = ["launch.num_nodes=2", "launch.gpus_per_node=4", "launch.device=auto", "launch.num_processes=null"]


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]


def test_every_key_is_a_directive_and_what_is_not_said_is_left_to_the_cluster() -> None:
    settings = SlurmSettings(
        partition="gpu",
        nodes=2,
        gpus_per_node=8,
        cpus_per_task=64,
        mem_gb=1.5,
        timeout_min=60,
        account="lab",
        qos="high",
        constraint="a100|h100",
        array_parallelism=2,
        preamble=["module load cuda"],
        python="apptainer exec image.sif python",
        max_requeues=0,
        signal_delay_s=90,
        sbatch={"exclusive": True, "mail-type": "END"},
    )
    script = batch_script(settings, FOLDER, "sweep-1", [Entry(2, "id2", WORDS), Entry(5, "id5", WORDS)])
    assert set(directives(script)) >= {
        *("partition=gpu", "nodes=2", "gpus-per-node=8", "cpus-per-task=64", "mem=1536M", "time=60", "account=lab"),
        *("qos=high", "constraint='a100|h100'", "array=2,5%2", "no-requeue", "signal=USR2@90", "exclusive"),
        *("mail-type=END", "job-name=sweep-1", "ntasks-per-node=1", "open-mode=append"),
    }
    assert script.index("module load cuda") < script.index("srun")
    assert "apptainer exec image.sif python -m prefopt.slurm.job" in script
    said = {
        line.partition("=")[0]
        for line in directives(batch_script(SlurmSettings(), FOLDER, "s", [Entry(1, "i", WORDS)]))
    }
    assert said == {*("chdir", "job-name", "nodes", "ntasks-per-node", "open-mode", "output", "requeue", "signal")}


@pytest.mark.parametrize(("numbers", "task"), [([3], None), ([1, 3], "3")])
def test_words_reach_the_job_whole(numbers: list[int], task: str | None) -> None:
    entries = [Entry(n, f"id{n}", WORDS if n == 3 else ["other"]) for n in numbers]
    script = batch_script(SlurmSettings(max_requeues=4), FOLDER, "s", entries)
    environment = {"PATH": "/usr/bin:/bin", **({"SLURM_ARRAY_TASK_ID": task} if task else {})}
    done = subprocess.run(
        ["bash", "-c", "srun() { printf '%s\\n' \"$@\"; return 75; }\n" + script],
        env=environment,
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert lines[lines.index("prefopt.slurm.job") + 1 :] == [f"{FOLDER}/job-3.log", "4", "id3", *WORDS]
    assert done.returncode == 75
    assert not done.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (SlurmSettings(nodes=0), "hydra.launcher.nodes must be 1 or more"),
        (SlurmSettings(mem_gb=0), "hydra.launcher.mem_gb must be above 0"),
        (SlurmSettings(timeout_min=2), "signal_delay_s=120 is not less than hydra.launcher.timeout_min=2, 120 seconds"),
        (SlurmSettings(sbatch={"time": 5}), "hydra.launcher.timeout_min"),
        (SlurmSettings(sbatch={"output": "x"}), "prefopt cannot hand this on"),
        (SlurmSettings(sbatch={"--exclusive": True}), "without dashes: exclusive"),
        (SlurmSettings(sbatch={"exclusive": False}), "must be text, a number or true"),
    ],
)
def test_what_sbatch_would_refuse_or_nobody_would_hear_is_refused(settings: SlurmSettings, said: str) -> None:
    with pytest.raises(UserError) as caught:
        check_slurm(settings)
    assert said in str(caught.value)


def test_run_and_launcher_agree_on_nodes_and_gpus() -> None:
    run = compose(["recipe=quickstart", *MANY])
    asked = fitted_to(SlurmSettings(), run.launch)
    assert (asked.nodes, asked.gpus_per_node) == (2, 4)
    assert (world_of(asked, run).device, world_of(asked, run).num_processes) == ("cuda", 8)
    with pytest.raises(UserError, match=r"hydra\.launcher\.nodes=3, but launch\.num_nodes=2"):
        fitted_to(SlurmSettings(nodes=3), run.launch)


@pytest.mark.parametrize(
    ("overrides", "settings", "said"),
    [
        (["launch.device=cuda"], SlurmSettings(), "no GPU is asked of SLURM"),
        (["launch.device=auto", "launch.num_processes=9"], SlurmSettings(gpus_per_node=8), "launch.num_processes=9"),
        (["launch.num_processes=3"], SlurmSettings(nodes=2), "launch.num_processes=3"),
    ],
)
def test_a_world_that_the_job_would_not_find_is_refused(
    overrides: list[str], settings: SlurmSettings, said: str
) -> None:
    with pytest.raises(UserError) as caught:
        world_of(settings, compose(["recipe=quickstart", *overrides]))
    assert said in str(caught.value)
