"""Which nodes a run has, which of them this is, and where they meet: by the settings, else by SLURM's environment.

SLURM says it in variables of the step that `srun` started. They tell more than `scontrol`, which containers lack.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from prefopt.errors import UserError
from prefopt.launch_check import check_nodes, host_and_port
from prefopt.settings import LaunchSettings

FIRST_PORT, NUM_PORTS = 20_000, 10_000
"""Ports that are made of a job's number: below those that Linux gives to outgoing connections."""
TRIES = 16


@dataclass(frozen=True)
class Meeting:
    """Where the nodes meet. ports: tried in this order, by the one that listens and by those that come."""

    host: str
    ports: tuple[int, ...]
    is_stated: bool


def find_nodes(launch: LaunchSettings) -> tuple[int, int]:
    """The number of nodes, and which of them this is.

    Raises: UserError where settings and environment contradict each other, or where SLURM gave the job several nodes
        and the command runs on one of them only, or several times on each.
    """
    num_nodes = launch.num_nodes or _nodes_of_step()
    started_on = _number("SLURM_STEP_NUM_NODES") or 1
    if 1 < started_on != num_nodes > 1:
        raise UserError(
            f"launch.num_nodes={num_nodes}, and srun started prefopt on {started_on} nodes",
            "leave launch.num_nodes out",
        )
    rank = launch.node_rank
    if rank is None:
        rank = _number("SLURM_NODEID") or 0 if num_nodes > 1 else 0
    check_nodes(launch, num_nodes, rank)
    return num_nodes, rank


def find_meeting(launch: LaunchSettings, num_nodes: int) -> Meeting:
    """Where `num_nodes` nodes meet.

    Raises: UserError where nobody says it.
    """
    if launch.rendezvous is not None:
        host, port = host_and_port(launch.rendezvous)
        if launch.node_rank is None and "SLURM_NODEID" not in os.environ:
            raise UserError(
                f"launch.num_nodes={num_nodes}: launch.node_rank is not set, and no SLURM says which node this is",
                f"launch.node_rank=0 where {host} is, 1 to {num_nodes - 1} on the others",
            )
        return Meeting(host, (port,), is_stated=True)
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST")
    if not nodes:
        raise UserError(
            f"launch.num_nodes={num_nodes}: launch.rendezvous is not set, and no SLURM says where node 0 is",
            "launch.rendezvous=HOST:PORT of node 0, the same on every node",
        )
    return Meeting(first_host(nodes), job_ports(), is_stated=False)


def first_host(nodes: str) -> str:
    """The first name of SLURM's list: gpu[03-05,9],login -> gpu03."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first)


def job_ports() -> tuple[int, ...]:
    """Ports of this SLURM step, the same on all its nodes; none outside SLURM."""
    return spread_ports(_number("SLURM_STEP_ID") or 0)


def spread_ports(number: int) -> tuple[int, ...]:
    """Ports of this SLURM job, other ones for each number; none outside SLURM."""
    job = _number("SLURM_JOB_ID")
    if job is None:
        return ()
    # A prime: what starts at once, with numbers that are near each other, lands far apart.
    first = job * TRIES + number * 7919
    return tuple(FIRST_PORT + (first + offset) % NUM_PORTS for offset in range(TRIES))


def _nodes_of_step() -> int:
    """Nodes of the step that `srun` started, on each of which this command runs once; 1 outside SLURM."""
    in_job, in_step = _number("SLURM_JOB_NUM_NODES") or 1, _number("SLURM_STEP_NUM_NODES")
    if in_step is None and in_job > 1:
        raise UserError(
            f"SLURM gave this job {in_job} nodes, and prefopt was started on one of them only",
            "srun --ntasks-per-node=1 prefopt train ...; or launch.num_nodes=1 to leave the others alone",
        )
    tasks = _number("SLURM_STEP_NUM_TASKS") or 1
    if in_step is not None and in_step > 1 and tasks != in_step:
        raise UserError(
            f"srun starts {tasks} tasks on {in_step} nodes, and prefopt is to be started once on each",
            "--ntasks-per-node=1; prefopt starts the ranks of its node itself",
        )
    return in_step or in_job


def _number(variable: str) -> int | None:
    value = os.environ.get(variable, "")
    return int(value) if value.isdigit() else None
