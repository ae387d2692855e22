"""Metrics as sums and counts, so that they mean the same for any cut of a step and any number of ranks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prefopt.batch import LossOutput, Responses


class Tally:
    """Named sums and counts on the device, added up over micro-batches and reduced over ranks in one call."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, total: Tensor, count: int) -> None:
        """Add a detached sum [] of `count` values."""
        total = total.detach().double()
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._counts[name] = self._counts.get(name, 0) + count

    def reduce(self, all_reduce: Callable[[Tensor], Tensor], device: torch.device) -> dict[str, tuple[float, float]]:
        """(sum, count) of each name over all ranks, which must all hold the same names. The one sync of a step."""
        names = sorted(self._sums)
        sums = torch.stack([self._sums[n].to(device) for n in names])
        counts = torch.tensor([self._counts[n] for n in names], dtype=torch.float64, device=device)
        totals = all_reduce(torch.stack((sums, counts))).tolist()
        return {name: (totals[0][i], totals[1][i]) for i, name in enumerate(names)}


def tally_batch(tally: Tally, responses: Responses, output: LossOutput, real: bool = True) -> None:
    """Add one micro-batch. real=False registers the names and adds nothing: a rank that only keeps the others company.

    The names are the same for every batch of a method; a metric that nobody counted is left out by `means`.
    """
    values = {**_of_pairs(responses, output), **_of_labels(responses, output)}
    if responses.rewards is None:
        values["nll"] = -responses.imitated_token_logps
    for component in output.components:
        values[f"loss/{component.name}"] = component.values
    for name, entries in values.items():
        total = entries.double().sum() if real else torch.zeros((), dtype=torch.float64, device=entries.device)
        tally.add(name, total, entries.shape[0] if real else 0)


def _of_pairs(responses: Responses, output: LossOutput) -> dict[str, Tensor]:
    """What is known of each pair."""
    chosen, rejected = responses.paired(output.rewards)
    found = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margin": chosen - rejected,
        "rewards/accuracy": (chosen > rejected).double(),
    }
    columns = {"length": responses.lengths}
    if responses.rewards is None:
        columns["logps"] = responses.logps
    for name, column in columns.items():
        found[f"{name}/chosen"], found[f"{name}/rejected"] = responses.paired(column)
    return found


def _of_labels(responses: Responses, output: LossOutput) -> dict[str, Tensor]:
    """What is known of desirable and undesirable responses, where the data have labels."""
    if responses.labels is None:
        return {}
    found = {}
    for name, rows in (("desirable", responses.labels), ("undesirable", ~responses.labels)):
        found[f"rewards/{name}"], found[f"logps/{name}"] = output.rewards[rows], responses.logps[rows]
        found[f"length/{name}"] = responses.lengths[rows]
    return found


def means(totals: dict[str, tuple[float, float]], weights: dict[str, float]) -> dict[str, float]:
    """Means of everything that was counted, and `loss`: the sum of the components' means times their weights."""
    result = {name: total / count for name, (total, count) in totals.items() if count}
    loss = sum(weight * result.get(f"loss/{name}", 0.0) for name, weight in weights.items())
    return {"loss": loss, **result}
