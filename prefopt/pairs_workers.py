"""The processes of a `prefopt pairs`: which part of the chunks each does."""

from __future__ import annotations

import os
import re
import sys

from prefopt.errors import UserError
from prefopt.pairs.folder import Folder, settings_text
from prefopt.workers import Workers, devices_of


def shard_of(said: str | None) -> tuple[int, int]:
    """Which part of how many this start does.

    Raises: UserError for anything but K/N, and for slurm outside of an array or a step, or in an array with gaps.
    """
    if said is None:
        return 0, 1
    if said == "slurm":
        return _shard_of_slurm()
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", said)
    if found is None or not int(found[1]) < int(found[2]):
        raise UserError(f"shard={said}: expected K/N with K from 0 to N - 1", "shard=0/4 to shard=3/4, or shard=slurm")
    return int(found[1]), int(found[2])


def _shard_of_slurm() -> tuple[int, int]:
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    if task is None and "SLURM_PROCID" in os.environ:
        return int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    if task is None:
        raise UserError(
            "shard=slurm: this is neither a task of a job array nor of a step", "sbatch --array=0-3, or srun"
        )
    first, last = (int(os.environ.get(f"SLURM_ARRAY_TASK_{end}", task)) for end in ("MIN", "MAX"))
    step, count = int(os.environ.get("SLURM_ARRAY_TASK_STEP", "1")), int(os.environ["SLURM_ARRAY_TASK_COUNT"])
    if (last - first) // step + 1 != count:
        raise UserError(
            f"shard=slurm: the job array has {count} tasks from {first} to {last}: which part is whose, cannot be told",
            f"sbatch --array=0-{count - 1}, or shard=K/N",
        )
    return (int(task) - first) // step, count


def run_workers(folder: Folder, shard: tuple[int, int]) -> int:
    """Do this start's part by processes of their own; 0, or the exit code of one that failed and has said why.

    Raises: RunError where one was killed; UserError with exit code 75 where a signal stopped them, and for device=cuda
        without a GPU.
    """
    settings = folder.settings
    if folder.is_judged:
        return 0
    devices = devices_of(settings.device, settings.num_processes)
    with Workers() as workers:
        for number, device in enumerate(devices.names):
            part = [str(place) for place in (*shard, number, len(devices.names))]
            command = [sys.executable, "-m", "prefopt.pairs", str(folder.path), *part, device]
            workers.start(command, settings_text(settings), devices.environment)
        return workers.wait()
