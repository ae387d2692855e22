"""Names of metrics as a page shows them: in which order, and how they are said."""

from __future__ import annotations

from collections.abc import Sequence

from prefopt.report.runs import Run

_FIRST = (
    "loss",
    "rewards/accuracy",
    "rewards/margin",
    "win_rate",
    "nll",
    "rewards/chosen",
    "rewards/rejected",
    "logps",
)


def metric_names(runs: Sequence[Run]) -> list[str]:
    """Every metric of any run, those that people look at first in front."""
    seen = {name: None for run in runs for name in run.metrics}
    return sorted(seen, key=rank)


def spoken(name: str) -> tuple[str, str]:
    """A metric as people say it, and where it was measured.

    eval/heldout/loss is (loss, heldout), win_rate/heldout/ties is (ties, win_rate heldout).
    """
    first, *rest = name.split("/", 2)
    if len(rest) < 2:
        return name, ""
    return rest[1], rest[0] if first == "eval" else f"{first} {rest[0]}"


def rank(name: str) -> tuple[int, int, str]:
    """Held-out metrics in the order of `_FIRST`, then the others by name."""
    metric = spoken(name)[0]
    if metric.startswith("loss/"):  # a part of the loss: loss/nll is no NLL of its own
        return len(_FIRST), 0, name
    for place, end in enumerate(_FIRST):
        if metric == end or metric.endswith(f"/{end}") or metric.startswith(f"{end}/"):
            return place, name.count("/"), name
    return len(_FIRST), 0, name
