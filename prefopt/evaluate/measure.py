"""What a measure is given and what it gives back; what `prefopt eval` writes and `prefopt report` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from prefopt.evaluate.settings import EvalSettings


@dataclass(frozen=True)
class Figure:
    """One number of a measure. low, high: bounds of its 95 % interval, where it has one. count: things averaged."""

    value: float
    low: float | None = None
    high: float | None = None
    count: int = 0


@dataclass(frozen=True)
class Measured:
    """What a measure found.

    figures: by name, of the form "set/metric", as metrics of training are spelt ("heldout/rewards/accuracy"). tables:
    small tables by name, each a list of rows of equal keys (a contingency table, a list of models). rows: one mapping
    per row measured, for rows.jsonl; "id" says which. left_out: how many rows could not be measured, by reason.
    notes: sentences that a reader of the figures has to know.
    """

    figures: Mapping[str, Figure]
    tables: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvalPlace:
    """Where a measure works. folder: of this evaluation; whatever a measure keeps for a resume lies in it. model: the
    folder or hub name that is measured, or "". run: the run folder that it came from, or None. device: of torch."""

    settings: EvalSettings
    folder: Path
    model: str
    run: Path | None
    device: str


class Measure(Protocol):
    """A frozen dataclass; its fields are its settings.

    uses: which of "model", "reference" and "reward" of the settings it looks at; others given are refused, since they
    would have no effect. Called on a fresh or an interrupted folder; the second call of the same goes on.
    """

    uses: ClassVar[frozenset[str]]

    def __call__(self, place: EvalPlace) -> Measured:
        """Measure. Raises: UserError for what a user can cause, before anything is written where that can be known."""
        ...
