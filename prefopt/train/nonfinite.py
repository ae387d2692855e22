"""Numbers that are not finite: in which tensors and rows they are, and the error that says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.batch import Batch, LossOutput, Responses, Unit
from prefopt.errors import RunError
from prefopt.train.checkpoint import Progress

NUM_NAMED = 5
"""Rows that a message names; the file has them all."""


class NonFiniteError(RunError):
    """Numbers that are not finite, raised on every rank alike.

    where: the step or the evaluation. tensors: what they were in, each with the ids of its data rows. rows: all of
    these. step: the number of a training step, from 1; None in an evaluation. seen: what else was measured of a step,
    as `train_step` gives it. looked_at: how many rows there were; where all are bad, the message says so.
    """

    def __init__(
        self,
        where: str,
        tensors: Mapping[str, Sequence[str]],
        said: str = "",
        step: int | None = None,
        seen: dict[str, Any] | None = None,
        looked_at: int = 0,
    ) -> None:
        self.tensors = {tensor: list(rows) for tensor, rows in tensors.items()}
        self.rows = sorted(set().union(*self.tensors.values()))
        said = said or _sentence(tensors)
        if 1 < looked_at == len(self.rows):
            said += f". These are all of the {looked_at} rows: the model, the method or a setting is wrong"
        super().__init__(f"{where}: {said}", "nothing of it was saved; nonfinite.json in the run folder lists the rows")
        self.where = where
        self.step = step
        self.seen = seen or {}


class Findings:
    """Which rows of a step or an evaluation hold numbers that are not finite: looked up only where there are any.

    count: [] how many (tensor, row) have some, on this rank so far; on the device, so that nobody waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self.count = torch.zeros((), dtype=torch.int64, device=device)
        self._seen: list[tuple[tuple[str, ...], dict[str, Tensor]]] = []

    def look(self, batch: Batch, responses: Responses, output: LossOutput) -> None:
        """Take note of what the model said of a micro-batch, and of the loss's values."""
        self.add(batch.ids, _of_batch(batch, responses, output))

    def add(self, ids: tuple[str, ...], bad: dict[str, Tensor]) -> None:
        """bad: for each tensor, which of the rows `ids` have numbers in it that are not finite, [E] bool."""
        self._seen.append((ids, bad))
        for rows in bad.values():
            self.count = self.count + rows.sum()

    def error(
        self,
        where: str,
        gather: Callable[[Any], list[Any]],
        step: int | None = None,
        seen: dict[str, Any] | None = None,
    ) -> NonFiniteError:
        """What to raise; every rank must call. The arguments are those of NonFiniteError."""
        mine = [row for ids, _ in self._seen for row in ids]
        looked_at = len({row for ids in gather(mine) for row in ids})
        return NonFiniteError(where, self.named(gather), step=step, seen=seen, looked_at=looked_at)

    def named(self, gather: Callable[[Any], list[Any]]) -> dict[str, list[str]]:
        """The tensors with their rows, over all ranks; every rank must call."""
        own: dict[str, set[str]] = {}
        for ids, bad in self._seen:
            for tensor, rows in bad.items():
                if places := rows.nonzero().flatten().tolist():
                    own.setdefault(tensor, set()).update(ids[place] for place in places)
        merged: dict[str, set[str]] = {}
        for part in gather(own):
            for tensor, named in part.items():
                merged.setdefault(tensor, set()).update(named)
        return {tensor: sorted(rows) for tensor, rows in merged.items()}


def rows_of(example: Tensor, values: Tensor, count: int) -> Tensor:
    """[E] bool: which of `count` examples own a value that is not finite. example: whose each of the values is."""
    bad = (~values.detach().isfinite()).to(torch.int64)
    return bad.new_zeros(count).index_add(0, example, bad) > 0


def _of_batch(batch: Batch, responses: Responses, output: LossOutput) -> dict[str, Tensor]:
    """The tensors of a micro-batch: what the model said comes before what the loss made of it."""
    count = len(batch.ids)
    if responses.rewards is None:
        found = {"logps": rows_of(responses.example, responses.logps, count)}
    else:
        found = {"rewards": rows_of(responses.example, responses.rewards, count)}
    if responses.prompt_logps is not None and responses.prompt_logps.shape[0]:
        found["prompt_logps"] = rows_of(batch.prompt_example, responses.prompt_logps, count)
    said = torch.stack(list(found.values())).any(0)
    for component in output.components:
        example = _owner(component.unit, responses)
        if example is None:  # values of tokens, in any order: of the rows that the model said such numbers of, or any
            is_bad = (~component.values.detach().isfinite()).any()
            found[component.name] = torch.where(said.any(), said, torch.ones_like(said)) & is_bad
        else:
            found[component.name] = rows_of(example, component.values, count)
    return found


def _owner(unit: Unit, responses: Responses) -> Tensor | None:
    """The example that each value of a component belongs to; None where their order is not known."""
    if unit is Unit.PAIR:
        return responses.example[responses.pairs[:, 0]]
    if unit is Unit.RESPONSE:
        return responses.example
    if unit is Unit.EXAMPLE:
        return torch.arange(responses.best.shape[0], device=responses.example.device)
    if unit in (Unit.DESIRABLE, Unit.UNDESIRABLE) and responses.labels is not None:
        return responses.example[responses.labels if unit is Unit.DESIRABLE else ~responses.labels]
    return None


@contextmanager
def recorded(folder: Path, is_main: bool, progress: Progress) -> Iterator[None]:
    """A block whose NonFiniteError is written to nonfinite.json before it goes on its way."""
    file = folder / "nonfinite.json"
    if is_main:
        file.unlink(missing_ok=True)  # an earlier start's
    try:
        yield
    except NonFiniteError as error:
        if is_main:
            step = progress.step if error.step is None else error.step
            found = {"step": step, "where": error.where, "rows": error.rows, "tensors": error.tensors}
            file.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
        raise


def short_list(rows: Sequence[str]) -> str:
    """The first few rows, and how many there are besides."""
    more = len(rows) - NUM_NAMED
    return ", ".join(rows[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")


def _sentence(tensors: Mapping[str, Sequence[str]]) -> str:
    """Tensors that are not finite in the same rows are said together."""
    by_rows: dict[tuple[str, ...], list[str]] = {}
    for tensor, rows in tensors.items():
        by_rows.setdefault(tuple(rows), []).append(tensor)
    return "; ".join(f"{' and '.join(names)} not finite in {short_list(rows)}" for rows, names in by_rows.items())
