"""Which nodes a run has and where they meet: settings, SLURM's environment, and what is refused of both."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import replace

import pytest

from prefopt.checks import check
from prefopt.config import compose
from prefopt.dry_run import launch_lines
from prefopt.errors import UserError
from prefopt.nodes import FIRST_PORT, NUM_PORTS, find_meeting, find_nodes, first_host, job_ports
from prefopt.ranks import World, accelerate_config, command, environment, free_port, plan_world
from prefopt.settings import LaunchSettings

STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_NODEID": "1",
}
"""What `srun --ntasks-per-node=1` says to its second task, of a job with two nodes."""


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests may themselves run inside a job."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


def say(monkeypatch: pytest.MonkeyPatch, **changed: str | None) -> None:
    """SLURM's environment as in `STEP`, but for what is changed."""
    for name, value in {**STEP, **changed}.items():
        if value is not None:
            monkeypatch.setenv(name, value)


def test_one_node_where_nobody_says_otherwise() -> None:
    assert find_nodes(LaunchSettings()) == (1, 0)


def test_slurm_says_how_many_nodes_there_are_and_where_they_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch)
    assert find_nodes(LaunchSettings()) == (2, 1)
    meeting = find_meeting(LaunchSettings(), 2)
    assert meeting.host == "gpu07"
    assert meeting.ports == job_ports()
    assert all(FIRST_PORT <= port < FIRST_PORT + NUM_PORTS for port in meeting.ports)
    world = plan_world(replace(compose(["recipe=quickstart"]), launch=LaunchSettings(device="cpu")))
    assert world == World("cpu", 2, 2, 1)


def test_a_job_of_one_node_is_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, SLURM_JOB_NUM_NODES="1", SLURM_STEP_NUM_NODES="1", SLURM_STEP_NUM_TASKS="1", SLURM_NODEID="0")
    assert find_nodes(LaunchSettings()) == (1, 0)


def test_a_step_of_one_node_in_a_larger_job_is_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, SLURM_STEP_NUM_NODES="1", SLURM_STEP_NUM_TASKS="1", SLURM_NODEID="0")
    assert find_nodes(LaunchSettings()) == (1, 0)


def test_settings_come_before_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch)
    assert find_nodes(LaunchSettings(node_rank=0)) == (2, 0)
    assert find_meeting(LaunchSettings(rendezvous="head:29400"), 2).ports == (29400,)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"SLURM_STEP_NUM_NODES": None, "SLURM_STEP_NUM_TASKS": None, "SLURM_NODEID": "0"},
            "gave this job 2 nodes, and prefopt was started on one of them only",
        ),
        ({"SLURM_STEP_NUM_TASKS": "16"}, "srun starts 16 tasks on 2 nodes"),
    ],
)
def test_a_job_that_would_train_on_part_of_its_nodes_is_refused(
    changed: dict[str, str | None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, **changed)
    with pytest.raises(UserError, match=said):
        find_nodes(LaunchSettings())


def test_another_number_of_nodes_than_srun_started_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch)
    with pytest.raises(UserError, match=r"launch.num_nodes=4, and srun started prefopt on 2 nodes"):
        find_nodes(LaunchSettings(num_nodes=4))


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu03", "gpu03"),
        ("gpu[03-05,9],login", "gpu03"),
        ("login,gpu[03-05]", "login"),
        ("rack[10-12]n[1,3]-ib,x", "rack10n1-ib"),
        ("a[7],b", "a7"),
    ],
)
def test_first_host_of_slurms_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first
    if shutil.which("scontrol"):
        listed = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=False)
        if listed.returncode == 0:  # some versions want a cluster's configuration for this
            assert listed.stdout.split()[0] == first


def test_where_nodes_meet_must_be_said_somewhere() -> None:
    with pytest.raises(UserError, match=r"launch\.rendezvous is not set, and no SLURM"):
        find_meeting(LaunchSettings(num_nodes=2, node_rank=0), 2)
    with pytest.raises(UserError, match=r"launch\.node_rank is not set, and no SLURM"):
        find_meeting(LaunchSettings(num_nodes=2, rendezvous="a:1"), 2)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["launch.num_nodes=0"], "launch.num_nodes must be 1 or more"),
        (["launch.timeout_minutes=0"], "launch.timeout_minutes must be above 0"),
        (["launch.node_rank=-1"], "launch.node_rank must be 0 or more"),
        (["launch.num_nodes=2", "launch.node_rank=2"], "launch.node_rank=2 is none of the 2 node(s)"),
        (["launch.num_nodes=2", "launch.num_processes=3"], "every node runs the same number"),
        (["launch.num_nodes=1", "launch.rendezvous=a:1"], "launch.rendezvous=a:1 has no effect"),
        (["launch.rendezvous=a"], "is not HOST:PORT"),
        (["launch.rendezvous=a:99999"], "is not HOST:PORT"),
        (["launch.gpus_per_node=8"], "launch.gpus_per_node=8 has no effect: launch.device=cpu"),
        (
            ["launch.device=auto", "launch.num_nodes=2", "launch.gpus_per_node=2", "launch.num_processes=2"],
            "launch.num_processes=2 is not launch.gpus_per_node=2 on each of 2 node(s)",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        check(compose(["recipe=quickstart", *overrides]))
    assert said in str(caught.value)


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run = compose(["recipe=quickstart", "launch.device=auto", "launch.num_processes=null", "launch.gpus_per_node=8"])
    with pytest.raises(UserError, match=r"launch\.gpus_per_node=8, and this machine shows 0 GPU"):
        plan_world(run)


def test_each_node_starts_its_ranks_of_one_world() -> None:
    run, world = compose(["recipe=quickstart"]), World("cpu", 6, num_nodes=2, node_rank=1)
    words = " ".join(command(run, world, 29500, "head"))
    assert "--num_machines 2 --num_processes 6" in words
    assert "--machine_rank 1 --main_process_ip head --rdzv_backend static" in words
    assert "deepspeed" not in words
    assert environment(run, world)["PREFOPT_WORLD_SIZE"] == "6"
    assert "num_machines: 2\nnum_processes: 6\n" in accelerate_config(run, world)
    assert world.recorded() == {"device": "cpu", "num_processes": 6, "num_nodes": 2}
    sharded = compose(["recipe=quickstart", "deepspeed=zero3"])
    assert "--deepspeed_multinode_launcher standard" in " ".join(command(sharded, world, 29500, "head"))


def test_a_dry_run_shows_the_command_of_each_node() -> None:
    run = compose(["recipe=quickstart", "launch.num_nodes=2", "launch.num_processes=4"])
    lines = launch_lines(run, World("cpu", 4, num_nodes=2))
    assert "  num_machines: 2" in lines
    first, second = (lines[lines.index(f"node {node}:") + 1] for node in (0, 1))
    assert first.replace("--machine_rank 0", "--machine_rank 1") == second
    assert "--main_process_ip NODE0" in first
    alone = launch_lines(run, World("cpu", 1))
    assert len(alone) == 1
    assert alone[0].endswith(f"-m prefopt.train {run.dir}")


def test_a_port_that_is_in_use_leads_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch)
    first = free_port()
    assert FIRST_PORT <= first < FIRST_PORT + NUM_PORTS
    with socket.socket() as taken:
        taken.bind(("", first))
        assert free_port() == first + 1
