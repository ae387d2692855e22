"""Which way a metric of a report is better, and whether there is such a way at all."""

from __future__ import annotations

from collections.abc import Sequence

from prefopt.better import direction, sign
from prefopt.report.runs import Gathered

_NEITHER = ("length", "logps", "logp", "tokens", "kl", "log_ratio", "count", "lr", "stopped", "rewards/chosen")
_LESS = ("perplexity", "repetition", "left_out", "empty", "refusal", "identical", "self_bleu", "collapsed", "grad_norm")


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
    """`preference` of each; but a sweep knows which way its own metric goes, and an objective has a way in any case."""
    ways = {name: preference(name) for name in metrics}
    for name in objectives:
        if name in ways and not ways[name]:
            ways[name] = -1 if direction(name) == "minimize" else 1
    if gathered.metric in ways and gathered.direction:
        ways[gathered.metric] = -1 if gathered.direction == "minimize" else 1
    return ways
