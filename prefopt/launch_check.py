"""Rules of the `launch` group: what contradicts itself or has no effect wherever the command runs."""

from __future__ import annotations

from prefopt.errors import UserError
from prefopt.settings import LaunchSettings, RunSettings


def check_launch(launch: LaunchSettings) -> None:
    """Refuse numbers that are out of range or contradict each other.

    Raises: UserError naming the key. What only SLURM's environment or the driver can tell is refused by `plan_world`.
    """
    for key in ("num_processes", "num_nodes", "gpus_per_node", "threads_per_process"):
        value = getattr(launch, key)
        if value is not None and value < 1:
            raise UserError(f"launch.{key} must be 1 or more, or null, not {value}")
    if launch.timeout_minutes <= 0:
        raise UserError(f"launch.timeout_minutes must be above 0, not {launch.timeout_minutes:g}")
    if launch.node_rank is not None and launch.node_rank < 0:
        raise UserError(f"launch.node_rank must be 0 or more, or null, not {launch.node_rank}")
    if launch.rendezvous is not None:
        host_and_port(launch.rendezvous)
    if launch.device == "cpu" and launch.gpus_per_node is not None:
        raise UserError(f"launch.gpus_per_node={launch.gpus_per_node} has no effect: launch.device=cpu", "leave it out")
    if launch.num_nodes is not None:
        check_nodes(launch, launch.num_nodes, launch.node_rank or 0)


def check_nodes(launch: LaunchSettings, num_nodes: int, node_rank: int) -> None:
    """Refuse settings that do not fit `num_nodes` nodes.

    Raises: UserError naming both numbers.
    """
    if node_rank >= num_nodes:
        raise UserError(
            f"launch.node_rank={node_rank} is none of the {num_nodes} node(s) of this run, which are counted from 0",
            "launch.num_nodes says how many there are",
        )
    if num_nodes == 1 and launch.rendezvous is not None:
        raise UserError(
            f"launch.rendezvous={launch.rendezvous} has no effect: the run has one node",
            "leave it out, or say launch.num_nodes",
        )
    ranks, gpus = launch.num_processes, launch.gpus_per_node
    if ranks is not None and ranks % num_nodes:
        raise UserError(
            f"launch.num_processes={ranks} are the ranks of all {num_nodes} nodes, and every node runs the same number",
            f"launch.num_processes={ranks // num_nodes * num_nodes or num_nodes}, or another launch.num_nodes",
        )
    if ranks is not None and gpus is not None and ranks != num_nodes * gpus:
        raise UserError(
            f"launch.num_processes={ranks} is not launch.gpus_per_node={gpus} on each of {num_nodes} node(s)",
            "leave one of the two out",
        )


def host_and_port(rendezvous: str) -> tuple[str, int]:
    """The two parts of HOST:PORT.

    Raises: UserError where it is something else.
    """
    host, _, port = rendezvous.rpartition(":")
    if not host.strip("[]") or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(
            f"launch.rendezvous={rendezvous} is not HOST:PORT", "for instance launch.rendezvous=node01:29400"
        )
    return host.strip("[]"), int(port)


def check_batch_reaches(run: RunSettings, num_processes: int) -> None:
    """Refuse a step with fewer pairs than there are processes: one of them would never have work.

    Raises: UserError naming both numbers.
    """
    if run.train.batch_size < num_processes:
        raise UserError(
            f"train.batch_size={run.train.batch_size} is less than the {num_processes} processes of this run",
            f"raise it, or lower launch.num_processes to {run.train.batch_size}",
        )
