"""The settings of `hydra/launcher=NAME` and `hydra/sweeper=NAME`: how runs are started, and what chooses their values.

They are no part of a run: the same run started in another way lands in the same folder. `params` of every sweeper: key
to values in Hydra's words, for the keys that the command line says nothing of (`prefopt/sweeps/params.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from prefopt.fill import one_of


@dataclass
class LocalSettings:
    """One run after the other, here. waits: whether the command stays until its runs have ended."""

    waits: ClassVar[bool] = True
    name: str = "local"


@dataclass
class LocalGpusSettings:
    """Several runs at once on this machine. jobs: null: as many as fit on its GPUs. gpus_per_job: null: one."""

    waits: ClassVar[bool] = True
    name: str = "local_gpus"
    jobs: int | None = None
    gpus_per_job: int | None = None


@dataclass
class SlurmSettings:
    """What is asked of SLURM for each job. null: not said, so that the cluster's own default holds.

    nodes, gpus_per_node: null: what the run's launch.num_nodes and launch.gpus_per_node say, else 1 and none.
    python: the command that runs Python on a node; null: the Python of this shell.
    sbatch: further directives by their long names, without the dashes; true for one without a value.
    """

    waits: ClassVar[bool] = False
    name: str = "slurm"
    partition: str | None = None
    nodes: int | None = None
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    timeout_min: int | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    array_parallelism: int | None = None
    preamble: list[str] = field(default_factory=list)
    python: str | None = None
    max_requeues: int = 20
    signal_delay_s: int = 120
    sbatch: dict[str, Any] = field(default_factory=dict)


@dataclass
class GridSettings:
    """Every combination. metric: by which runs are compared; null: train.best_metric."""

    name: str = "grid"
    metric: str | None = None
    direction: str = one_of("auto", "minimize", "maximize")
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class RandomSettings:
    """n_trials independent draws, a function of the seed."""

    name: str = "random"
    n_trials: int = 20
    seed: int = 42
    metric: str | None = None
    direction: str = one_of("auto", "minimize", "maximize")
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class OptunaSettings:
    """n_trials runs, each chosen by Optuna from those before it."""

    name: str = "optuna"
    n_trials: int = 20
    seed: int = 42
    metric: str | None = None
    direction: str = one_of("auto", "minimize", "maximize")
    params: dict[str, Any] = field(default_factory=dict)


SCHEMAS: dict[str, dict[str, type]] = {
    "hydra/launcher": {"local": LocalSettings, "local_gpus": LocalGpusSettings, "slurm": SlurmSettings},
    "hydra/sweeper": {"grid": GridSettings, "random": RandomSettings, "optuna": OptunaSettings},
}
"""Group to the `name` that a file of it may have to the dataclass of its keys."""
