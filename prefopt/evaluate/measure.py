"""What a measure is given and what it gives back; what `prefopt eval` writes and `prefopt report` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

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


EVERY_SETTING = frozenset({"chat_template", "device", "dtype", "resamples", "seed", "tokens_per_batch"})
"""Settings of `EvalSettings` that some measures have no use for."""


class Measure(Protocol):
    """A frozen dataclass; its fields are its settings.

    uses: which of "model", "reference" and "reward" of the settings it looks at; others given are refused, since they
    would have no effect. reads: the same of `EVERY_SETTING`. Called on a fresh or an interrupted folder; the second
    call of the same goes on.
    """

    uses: ClassVar[frozenset[str]]
    reads: ClassVar[frozenset[str]]

    def __call__(self, place: EvalPlace) -> Measured:
        """Measure. Raises: UserError for what a user can cause, before anything is written where that can be known."""
        ...


@runtime_checkable
class Demanding(Protocol):
    """A measure that cannot do without some of what it `uses`, with its settings; without `needs` nothing is demanded
    when a command is composed, and the measure says itself what it lacks."""

    @property
    def needs(self) -> frozenset[str]:
        """Which of "model", "reference" and "reward" must be given; a run gives the first, and the second."""


@runtime_checkable
class ChecksSettings(Protocol):
    """A measure that has something to say of the other settings of the command before anything is loaded."""

    def check(self, settings: EvalSettings) -> None:
        """Raises: UserError for settings that it cannot work with, or that would have no effect."""


@runtime_checkable
class ReadsFiles(Protocol):
    """A measure of data files: their sha256 goes into the manifest, so that other rows are not taken for these."""

    @property
    def files(self) -> Mapping[str, str]:
        """Paths by a name that messages show; a path that is no file or folder here (a hub name) is left alone."""


@runtime_checkable
class HasUnits(Protocol):
    """A measure that says what its figures are in. units: words between the slashes of a figure's name to its unit; the
    first that a name has counts."""

    units: ClassVar[Mapping[str, str]]


def unit_of(name: str, units: Mapping[str, str]) -> str:
    """The unit of a figure; empty where none is said."""
    words = name.split("/")
    return next((unit for word, unit in units.items() if word in words), "")


@runtime_checkable
class SharesWork(Protocol):
    """A measure whose work several processes can share: each does its part, and then one calls the measure.

    A measure without `work` has one process, and `num_processes` is refused.
    """

    def work(self, place: EvalPlace, number: int, of: int) -> None:
        """Part `number` (from 0) of `of`, into the folder. Raises: as the measure itself."""
