"""Weighted sums of the demo's two objectives, one function for each weight of `modpo.WEIGHTS`."""

from __future__ import annotations

from prefopt.demo.manners import politeness, rightness


def weighted(prompt: str, answer: str, weight: float) -> float:
    """weight * right + (1 - weight) * (polite - rude)."""
    return weight * rightness(prompt, answer) + (1 - weight) * politeness(prompt, answer)


def weighted_9(prompt: str, answer: str) -> float:
    """Weight 0.9."""
    return weighted(prompt, answer, 0.9)


def weighted_7(prompt: str, answer: str) -> float:
    """Weight 0.7."""
    return weighted(prompt, answer, 0.7)


def weighted_5(prompt: str, answer: str) -> float:
    """Weight 0.5."""
    return weighted(prompt, answer, 0.5)


def weighted_3(prompt: str, answer: str) -> float:
    """Weight 0.3."""
    return weighted(prompt, answer, 0.3)


def weighted_1(prompt: str, answer: str) -> float:
    """Weight 0.1."""
    return weighted(prompt, answer, 0.1)
