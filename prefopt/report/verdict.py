"""Which way a metric of a report is better, and whether there is such a way at all."""

from __future__ import annotations

from collections.abc import Sequence

from prefopt.better import direction, sign
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
    those, none of them is better. But a sweep
    knows which way its own metric goes, and an objective that was asked for has a way in any case.
    """
    is_mixed = len({run.method for run in gathered.runs if run.method}) > 1 or bool(_scales(gathered))
    ways = {name: 0 if is_mixed and _is_of_one_method(name) else preference(name) for name in metrics}
    for name in objectives:
        if name in ways and not ways[name]:
            ways[name] = preference(name) or (-1 if direction(name) == "minimize" else 1)
    if gathered.metric in ways and gathered.direction:
        ways[gathered.metric] = -1 if gathered.direction == "minimize" else 1
    return ways


def incomparable(gathered: Gathered) -> list[str]:
    """A sentence that says why losses do not compare, where a setting of the loss itself differs between runs."""
    scales = _scales(gathered)
    if not scales:
        return []
    differ = "differs" if len(scales) == 1 else "differ"
    return [f"loss and rewards/margin are not comparable between these runs: {', '.join(scales)} {differ}"]


def _scales(gathered: Gathered) -> list[str]:
    return [key for key in gathered.varied if key.startswith("loss.") and key != METHOD]


def _is_of_one_method(metric: str) -> bool:
    name = spoken(metric)[0]
    return name == "loss" or name.startswith("loss/") or name.endswith("rewards/margin")
