"""The metric by which the runs of a sweep are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefopt.better import direction
from prefopt.errors import UserError, did_you_mean
from prefopt.settings import RunSettings
from prefopt.sweeps.jobs import DONE, RUNNING, Job


def goal(sweeper: Any, run: RunSettings) -> tuple[str | None, str]:
    """The metric, None where none is named, and minimize or maximize.

    sweeper: filled settings of hydra/sweeper. run: one of the sweep's.

    Raises: UserError where no evaluation of the run can give the metric, or a direction has none.
    """
    metric = sweeper.metric or run.train.best_metric
    if metric is None:
        if sweeper.direction != "auto":
            raise UserError(f"hydra.sweeper.direction={sweeper.direction} has no effect without hydra.sweeper.metric")
        if sweeper.name == "optuna":
            raise UserError(
                "hydra/sweeper=optuna needs a metric to improve",
                "hydra.sweeper.metric=eval/heldout/rewards/accuracy, for instance",
            )
        return None, "maximize"
    sets = [*run.data.eval, *(["heldout"] if run.data.eval_size else [])]
    if not sets or run.train.eval_every == "never":
        raise UserError(f"hydra.sweeper.metric={metric}: the runs evaluate nothing", "data.eval_size=N, for instance")
    first, _, rest = metric.partition("/")
    if first != "eval" or rest.partition("/")[0] not in sets or not rest.partition("/")[2]:
        known = [f"eval/{name}/{metric.rpartition('/')[2]}" for name in sets]
        raise UserError(f"hydra.sweeper.metric={metric}: no evaluation gives it", did_you_mean(metric, known))
    return metric, direction(metric) if sweeper.direction == "auto" else sweeper.direction


def check_metric(job: Job, metric: str | None) -> None:
    """Refuse a metric that a job does not give, by its result or, while it runs, by its evaluation before step 1.

    Raises: UserError with the nearest names.
    """
    if metric is None or job.state not in (RUNNING, DONE):
        return
    given = job.metrics if job.state == DONE else _first_evaluation(Path(job.dir))
    if given and metric not in given:
        raise UserError(
            f"hydra.sweeper.metric={metric}: no evaluation of job {job.number} gives it", did_you_mean(metric, given)
        )


def _first_evaluation(folder: Path) -> dict[str, float]:
    """The evaluation before step 1; empty where there is none yet."""
    try:
        with open(folder / "metrics.jsonl", encoding="utf-8") as file:
            first = json.loads(file.readline())
    except (FileNotFoundError, ValueError):  # ValueError: the line that is being written
        return {}
    return {name: value for name, value in first.items() if name.startswith("eval/")}
