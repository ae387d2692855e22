"""Which way a metric is better, told by its name."""

from __future__ import annotations

LESS_IS_BETTER = frozenset(
    {"nll", "perplexity", "repetition", "collapsed", "brier", "ece", "seconds", "peak_memory_bytes", "grad_norm"}
)
"""Last parts of names of which less is better, besides every loss."""


def direction(metric: str) -> str:
    """minimize for a loss or one of `LESS_IS_BETTER`, maximize for anything else."""
    last = metric.rpartition("/")[2]
    return "minimize" if "loss" in metric or last.endswith("nll") or last in LESS_IS_BETTER else "maximize"


def sign(metric: str) -> float:
    """-1 where less is better, else 1: a value times it is larger where it is better."""
    return -1.0 if direction(metric) == "minimize" else 1.0
