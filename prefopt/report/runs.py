"""A run as a report sees it, whatever its state: read by `collect`, shown by the table, the figures and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefopt.evaluate.measure import Figure


@dataclass(frozen=True)
class Evaluation:
    """A folder of `prefopt eval`. figures, tables, left_out, notes: as `Measured` has them. folder: where it lies, and
    its rows.jsonl with it. of: the run's folder or the model that it measured, "" where it does not say."""

    name: str
    folder: Path
    figures: Mapping[str, Figure]
    tables: Mapping[str, list[dict[str, Any]]]
    notes: Sequence[str] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    of: str = ""


@dataclass(frozen=True)
class Run:
    """One run, or one job of a sweep that has not come to a folder, or a model that was only evaluated.

    label: what tells it from the others, what it varies ("lr=0.001 seed=1") or its name; no two runs have the same.
    name: the end of its folder, as much as tells it from the others (quick, or two/quick); of a job without a folder
    "job 3", of a model that was only evaluated the model.
    method: the loss's name; "" where nobody knows it. varied: dotted key to value, of the settings in which the runs of
    this report differ; a key that a run does not have is left out. settings: every dotted key as the run was composed
    (demo:// and not its place on this machine), lists of mappings entered by place; of a job without a folder what
    its sweep's other runs share and what it varies.
    state: as `prefopt.sweeps.jobs` names them (done, running, failed, preempted, lost, queued). error: one line, where
    there is one. metrics: the last evaluation, result.json's where there is one, by name (eval/heldout/loss); the
    newest numbers of its answers (samples/length), both without those of step 0 where the run is not done; and the
    figures of its evaluations, as EVALUATION/figure.
    curves: metric name to (step, value) pairs in the order of steps, NaN and infinities left out. nonfinite: how many
    values were. broken: lines of metrics.jsonl that could not be read. seconds: of training, of its last start; None
    until it is done. starts: how often it was started. peak_memory_bytes: the largest of any line. samples: rows of
    the samples file, in order. data_report, manifest: as they lie in the folder.
    """

    folder: Path | None
    label: str
    method: str
    varied: Mapping[str, Any]
    settings: Mapping[str, Any]
    state: str
    error: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    nonfinite: int = 0
    broken: int = 0
    seconds: float | None = None
    starts: int = 0
    peak_memory_bytes: int | None = None
    samples: Sequence[Mapping[str, Any]] = ()
    data_report: Mapping[str, Any] | None = None
    manifest: Mapping[str, Any] | None = None
    evaluations: Sequence[Evaluation] = ()
    name: str = ""

    @property
    def changes(self) -> list[str]:
        """What a later start of it changed: "optim.lr was 0.0001 up to step 60"."""
        starts = (self.manifest or {}).get("starts") or []
        changes = [change for start in starts for change in start.get("changes") or [] if change.get("after_step")]
        return [f"{of['key']} was {str(of['old'])[:40]} up to step {of['after_step']}" for of in changes]

    @property
    def called(self) -> str:
        """What people call it: its name, or its label where nobody gave it one."""
        return self.name or self.label


@dataclass(frozen=True)
class Gathered:
    """All runs of a report. title: of the sweep or of the folders named. varied: the keys that differ, in order.

    metric: the one that a sweep compares its runs by, "" where none does; direction: minimize or maximize, of it.
    swept: the keys that the sweeps among them vary, of `varied`.
    """

    title: str
    runs: Sequence[Run]
    varied: Sequence[str]
    notes: Sequence[str] = ()
    metric: str = ""
    direction: str = ""
    swept: Sequence[str] = ()
