"""What of hydra.launcher cannot be with hydra/launcher=slurm, alone or with a run."""

from __future__ import annotations

from dataclasses import replace

from prefopt.errors import UserError
from prefopt.launch_check import check_batch_reaches
from prefopt.memory_check import check_device
from prefopt.ranks import World
from prefopt.settings import LaunchSettings, RunSettings
from prefopt.sweeps.settings import SlurmSettings

OWN_KEYS = {
    "time": "timeout_min",
    "mem": "mem_gb",
    **{
        key.replace("_", "-"): key for key in ("partition", "nodes", "gpus_per_node", "cpus_per_task", "account", "qos")
    },
    "constraint": "constraint",
    "signal": "signal_delay_s",
    "requeue": "max_requeues",
    "no-requeue": "max_requeues",
}
"""Directives that have a key of their own."""

KEPT = ("array", "chdir", "output", "error", "open-mode", "ntasks", "ntasks-per-node", "wrap", "parsable")
"""Directives that prefopt says itself: by them it finds logs and jobs again, and starts once on every node."""


def check_slurm(settings: SlurmSettings) -> None:
    """Refuse what sbatch would refuse later, or what would have no effect.

    Raises: UserError naming the key.
    """
    for key in ("nodes", "cpus_per_task", "timeout_min", "array_parallelism", "signal_delay_s"):
        _require(getattr(settings, key), 1, key, "1 or more")
    for key in ("gpus_per_node", "max_requeues"):
        _require(getattr(settings, key), 0, key, "0 or more")
    if settings.mem_gb is not None and settings.mem_gb <= 0:
        raise UserError(f"hydra.launcher.mem_gb must be above 0, not {settings.mem_gb:g}")
    if settings.timeout_min is not None and settings.signal_delay_s >= settings.timeout_min * 60:
        raise UserError(
            f"hydra.launcher.signal_delay_s={settings.signal_delay_s} is not less than"
            f" hydra.launcher.timeout_min={settings.timeout_min}, {settings.timeout_min * 60} seconds:"
            " the job would be told to stop before it begins",
            "a longer limit, or fewer seconds for the step and the save",
        )
    for name, value in settings.sbatch.items():
        if name in OWN_KEYS:
            raise UserError(f"hydra.launcher.sbatch.{name}: this has a key", f"hydra.launcher.{OWN_KEYS[name]}")
        if name in KEPT or name.startswith("-"):
            hint = "leave it out" if name in KEPT else f"without dashes: {name.lstrip('-')}"
            raise UserError(f"hydra.launcher.sbatch.{name}: prefopt cannot hand this on", hint)
        if value is False or value is None or isinstance(value, (list, dict)):
            raise UserError(f"hydra.launcher.sbatch.{name} must be text, a number or true, not {value}")


def fitted_to(settings: SlurmSettings, launch: LaunchSettings) -> SlurmSettings:
    """With the nodes and GPUs that the run speaks of where the launcher does not.

    Raises: UserError where both say it and differ.
    """
    for ours, theirs in (("nodes", "num_nodes"), ("gpus_per_node", "gpus_per_node")):
        asked, needed = getattr(settings, ours), getattr(launch, theirs)
        if asked is not None and needed is not None and asked != needed:
            raise UserError(f"hydra.launcher.{ours}={asked}, but launch.{theirs}={needed}", "say it once")
        settings = replace(settings, **{ours: needed if asked is None else asked})
    return settings


def world_of(settings: SlurmSettings, run: RunSettings) -> World:
    """The world that a job of these settings will find, as far as it can be told from a machine that is no node.

    Raises: UserError where the run wants GPUs and none are asked for, or more ranks than there will be.
    """
    nodes = settings.nodes or 1
    gpus = 0 if run.launch.device == "cpu" else settings.gpus_per_node or 0
    if run.launch.device == "cuda" and not gpus:
        raise UserError("launch.device=cuda, and no GPU is asked of SLURM", "hydra.launcher.gpus_per_node=N")
    num_processes = run.launch.num_processes or nodes * (gpus or 1)
    if num_processes % nodes or (gpus and num_processes > nodes * gpus):
        raise UserError(
            f"launch.num_processes={num_processes}, and SLURM is asked for {nodes} x {gpus or 1}",
            "leave it out, or ask for other nodes by hydra.launcher.nodes and gpus_per_node",
        )
    device = "cuda" if gpus else "cpu"
    check_batch_reaches(run, num_processes)
    check_device(run, device)
    return World(device, num_processes, nodes)


def _require(value: int | None, least: int, key: str, must_be: str) -> None:
    if value is not None and value < least:
        raise UserError(f"hydra.launcher.{key} must be {must_be}, not {value}")
