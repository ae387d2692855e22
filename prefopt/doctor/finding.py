"""What a probe says: one line of the table, with its state and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a finding is meant. PROBLEM: a run with default settings would fail; only it makes the exit code 1."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One line. name: what was looked at. found: what was seen. advice: what to do; empty where there is nothing."""

    name: str
    state: State
    found: str
    advice: str = ""


def ok(name: str, found: str, advice: str = "") -> Finding:
    """A finding that needs nothing; what is not installed and not needed by default is one too."""
    return Finding(name, State.OK, found, advice)


def warning(name: str, found: str, advice: str) -> Finding:
    """A finding that a default run outlives and that some run may not."""
    return Finding(name, State.WARNING, found, advice)


def problem(name: str, found: str, advice: str) -> Finding:
    """A finding that a default run fails on."""
    return Finding(name, State.PROBLEM, found, advice)
