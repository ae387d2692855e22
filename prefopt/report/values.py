"""The numbers by which runs are compared: their names, their values, and which are shown where nobody names any."""

from __future__ import annotations

from collections.abc import Sequence

from prefopt import better
from prefopt.errors import UserError, did_you_mean
from prefopt.report.curves import EVALUATION, SAMPLES
from prefopt.report.pareto import MAXIMIZE, MINIMIZE
from prefopt.report.runs import Gathered, Run
from prefopt.report.verdict import preference
from prefopt.sweeps.jobs import DONE

SECONDS, MEMORY = "seconds", "peak_memory_bytes"

_OF_ONE_METHOD = ("loss", "rewards/accuracy", "rewards/margin")
_OF_SEVERAL = ("rewards/accuracy", "nll")
"""Losses and margins of two methods have other units: they say nothing beside each other."""

_FIGURES = 2
"""How many figures of each evaluation are shown unasked, its first ones."""


def value(run: Run, metric: str) -> float | None:
    """What a run has for a metric; None where it has none.

    Held-out metrics, numbers about answers and figures of evaluations are the newest; a metric of training steps is
    that of the last step; seconds and peak_memory_bytes are the whole run's.
    """
    if metric in run.metrics:
        return run.metrics[metric]
    if metric == SECONDS:
        return run.seconds
    if metric == MEMORY:
        return None if run.peak_memory_bytes is None else float(run.peak_memory_bytes)
    if metric.startswith((EVALUATION, SAMPLES)):
        return None
    curve = run.curves.get(metric)
    return curve[-1][1] if curve else None


def step_of(run: Run, metric: str) -> int | None:
    """At which step the value of a run that is not done was measured; None of one that is, and of whole-run numbers."""
    curve = run.curves.get(metric)
    if run.state == DONE or not curve or metric in (SECONDS, MEMORY):
        return None
    return curve[-1][0]


def known_metrics(runs: Sequence[Run]) -> list[str]:
    """Every metric that some run has, held-out ones first."""
    names = dict.fromkeys(name for run in runs for name in run.metrics)
    names |= dict.fromkeys(name for run in runs for name in run.curves)
    return [*names, SECONDS, *([] if MEMORY in names else [MEMORY])]


def resolve(name: str, known: Sequence[str], option: str) -> str:
    """The metric that a word of the command line means: its name, or the end of the name of exactly one.

    A bare name is a held-out metric's before it is one of training steps, its last word too: accuracy is
    eval/heldout/rewards/accuracy where no other held-out metric ends so. option: for messages.

    Raises: UserError where there is none, or several.
    """
    if name in known and not any(metric.startswith(EVALUATION) and metric.endswith(f"/{name}") for metric in known):
        return name
    fitting = [metric for metric in known if metric.endswith(f"/{name}")]
    depth = 2 + name.count("/")  # eval/SET/NAME, and not eval/SET/loss/NAME
    held_out = [metric for metric in fitting if metric.startswith(EVALUATION) and metric.count("/") == depth]
    for found in (held_out, [metric for metric in fitting if metric.startswith(EVALUATION)], fitting):
        if len(found) == 1:
            return found[0]
    if name in known:
        return name
    if fitting:
        raise UserError(f"{option} {name}: several metrics end so", "one of " + ", ".join(fitting))
    raise UserError(f"{option} {name}: no run has such a metric", did_you_mean(name, known))


def headlines(gathered: Gathered) -> list[str]:
    """The metrics that are shown where nobody names any.

    That of the sweep; then loss, reward accuracy and margin of the first held-out set, or, where methods differ,
    accuracy and NLL; where nobody evaluated, the same of the last training step. Then the first figures of evaluations.
    """
    runs, known = gathered.runs, known_metrics(gathered.runs)
    is_mixed = len({run.method for run in runs if run.method}) > 1
    wanted = _OF_SEVERAL if is_mixed else _OF_ONE_METHOD
    sets = dict.fromkeys(name.split("/")[1] for name in known if name.startswith(EVALUATION))
    held_out = [f"{EVALUATION}{next(iter(sets))}/{name}" for name in wanted] if sets else []
    found = [gathered.metric] if gathered.metric in known else []
    found += [name for name in held_out if name in known] or [name for name in wanted if name in known]
    evaluated = dict.fromkeys(evaluation.name for run in runs for evaluation in run.evaluations)
    for name in evaluated:
        found += [metric for metric in known if metric.startswith(f"{name}/")][:_FIGURES]
    return list(dict.fromkeys(found))


def direction(metric: str, gathered: Gathered) -> str:
    """minimize or maximize: as the sweep says of its own metric, else as the name tells."""
    if gathered.direction and metric == gathered.metric:
        return gathered.direction
    return MINIMIZE if (preference(metric) or better.sign(metric)) < 0 else MAXIMIZE
