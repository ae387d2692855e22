"""Which way a metric is better, told by its name."""

from __future__ import annotations


def direction(metric: str) -> str:
    """minimize for a loss or an NLL, maximize for anything else."""
    return "minimize" if "loss" in metric or metric.endswith("nll") else "maximize"


def sign(metric: str) -> float:
    """-1 where less is better, else 1: a value times it is larger where it is better."""
    return -1.0 if direction(metric) == "minimize" else 1.0
