"""Which way a metric of a report is better, and whether there is such a way at all."""

from __future__ import annotations

from collections.abc import Sequence

from prefopt.better import direction, sign
from prefopt.report.held_out import differing_sets, set_of
from prefopt.report.metric_names import spoken
from prefopt.report.runs import Gathered
from prefopt.report.varied import METHOD

_NEITHER = (
    "length",
    "logps",
    "logp",
    "tokens",
    "kl",
    "log_ratio",
    "count",
    "lr",
    "stopped",
    "collapsed",
    "rewards/chosen",
)
_LESS = ("perplexity", "repetition", "left_out", "empty", "refusal", "identical", "self_bleu", "grad_norm")


def preference(metric: str) -> int:
    """1 where more is better, -1 where less is, 0 where a value is neither: a length, a log-probability, a distance."""
    name = metric.lower()
    words = set(name.replace(":", "/").replace(" ", "/").split("/"))
    if "accuracy" in name or "win_rate" in name:
        return 1
    if any(word in words or name.endswith(word) for word in _NEITHER) or "rewards/rejected" in name or "drift" in name:
        return 0
    if any(word in name for word in _LESS):
        return -1
    return int(sign(metric))


def preferences(gathered: Gathered, metrics: Sequence[str], objectives: Sequence[str] = ()) -> dict[str, int]:
    """`preference` of each metric, among these runs.

    A loss or a margin has another unit for every method and for every value of its settings: where runs differ in
    those, none of them is better. Neither is one by a held-out set that was not the same rows for all. But a sweep
    knows which way its own metric goes, where all measured it on the same rows, and an objective that was asked for has
    a way in any case.
    """
    is_mixed, other_rows = bool(_methods(gathered)) or bool(loss_settings(gathered)), differing_sets(gathered.runs)
    ways = {name: 0 if is_mixed and _is_of_one_method(name) else preference(name) for name in metrics}
    if gathered.metric in ways and gathered.direction:
        ways[gathered.metric] = -1 if gathered.direction == "minimize" else 1
    ways |= {name: 0 for name in metrics if set_of(name) in other_rows}
    for name in objectives:
        if name in ways and not ways[name]:
            ways[name] = preference(name) or (-1 if direction(name) == "minimize" else 1)
    return ways


def withheld(gathered: Gathered, metric: str) -> str:
    """Why no run is the best by a metric: "loss.beta differs"; "" where one is."""
    if preferences(gathered, [metric])[metric]:
        return ""
    if (name := set_of(metric)) in differing_sets(gathered.runs):
        return f"the rows of {name} differ"
    if _is_of_one_method(metric):
        if methods := _methods(gathered):
            return f"methods differ ({', '.join(methods)})"
        if differing := loss_settings(gathered):
            return _differ(differing)
    return "neither more nor less of it is better"


def incomparable(gathered: Gathered) -> list[str]:
    """Sentences that say which numbers of these runs do not compare: losses, where a setting of the loss itself differs
    between them, and metrics of held-out sets that were not the same rows."""
    found = []
    if differing := loss_settings(gathered):
        found.append(f"loss and rewards/margin are not comparable between these runs: {_differ(differing)}")
    for name, rows in differing_sets(gathered.runs).items():
        found.append(f"metrics of eval/{name} are not comparable between these runs, whose rows of it differ: {rows}")
    return found


def loss_settings(gathered: Gathered) -> list[str]:
    """The settings of the loss that differ between runs, the method itself apart."""
    return [key for key in gathered.varied if key.startswith("loss.") and key != METHOD]


def _methods(gathered: Gathered) -> list[str]:
    """The methods of the runs, where there are several."""
    found = list(dict.fromkeys(run.method for run in gathered.runs if run.method))
    return found if len(found) > 1 else []


def _differ(keys: Sequence[str]) -> str:
    return f"{', '.join(keys)} {'differs' if len(keys) == 1 else 'differ'}"


def _is_of_one_method(metric: str) -> bool:
    name = spoken(metric)[0]
    return name == "loss" or name.startswith("loss/") or name.endswith("rewards/margin")
