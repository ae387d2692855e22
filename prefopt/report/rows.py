"""The rows of a report's table: a run each, or runs that differ in nothing but their seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from prefopt.report.runs import Gathered, Run
from prefopt.report.values import MEMORY, SECONDS, direction, step_of, value
from prefopt.report.varied import SEED, shown
from prefopt.sweeps.jobs import DONE, STATES


@dataclass(frozen=True)
class Cell:
    """A metric of a row. mean: over `count` runs. sd: their standard deviation (n - 1); None of one run.

    step: of runs that are not done, at which step it was measured, the first of several; None of those that are.
    """

    mean: float
    sd: float | None
    count: int
    step: int | None = None


@dataclass(frozen=True)
class Row:
    """One row. runs: its runs, one where nothing is grouped. values: by metric; what no run has is left out."""

    runs: Sequence[Run]
    values: dict[str, Cell]

    @property
    def first(self) -> Run:
        """The run whose settings, the seed apart, all of them have."""
        return self.runs[0]

    @property
    def name(self) -> str:
        """The name of its run; of several the first one's and how many more there are."""
        more = f" and {len(self.runs) - 1} more" if len(self.runs) > 1 else ""
        return self.first.called + more

    @property
    def label(self) -> str:
        """The label of its run; of several without what says the seed."""
        label = self.first.label
        if len(self.runs) == 1:
            return label
        return " ".join(word for word in label.split(" ") if not word.startswith("seed=")) or "all"

    @property
    def state(self) -> str:
        """done, or "2 done, 1 failed"."""
        counts = Counter(run.state for run in self.runs)
        if len(self.runs) == 1:
            return self.first.state
        return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])

    @property
    def error(self) -> str:
        """Why runs of it are not done; by seed where there are several runs."""
        if len(self.runs) == 1:
            return self.first.error
        failed = [run for run in self.runs if run.error]
        return "; ".join(f"seed {shown(run.varied[SEED])}: {run.error}" for run in failed)


def make_rows(gathered: Gathered, metrics: Sequence[str], sort: str, is_turned: bool, each_seed: bool) -> list[Row]:
    """The rows, best first by `sort`; as gathered where it is "". Rows without that metric come last.

    is_turned: the worst first. each_seed: a row for every run. Runs are grouped where they differ in train.seed alone;
    the mean is over those that are done, or over all that have a number where none is.
    """
    groups: dict[tuple[object, ...], list[Run]] = {}
    repeats: Counter[tuple[object, ...]] = Counter()
    for place, run in enumerate(gathered.runs):
        if each_seed or SEED not in run.varied:
            groups[(place,)] = [run]
            continue
        rest = tuple((key, shown(of)) for key, of in run.varied.items() if key != SEED)
        seeded = (run.method, rest, shown(run.varied[SEED]))
        groups.setdefault((run.method, rest, repeats[seeded]), []).append(run)  # the same seed again is another row
        repeats[seeded] += 1
    wanted = dict.fromkeys([*metrics, *([sort] if sort else []), SECONDS, MEMORY])
    rows = [
        Row(group, {name: cell for name in wanted if (cell := _cell(group, name)) is not None})
        for group in groups.values()
    ]
    if not sort:
        return rows
    turn = (-1.0 if direction(sort, gathered) == "minimize" else 1.0) * (-1.0 if is_turned else 1.0)
    having = sorted((row for row in rows if sort in row.values), key=lambda row: -turn * row.values[sort].mean)
    return having + [row for row in rows if sort not in row.values]


def missing(gathered: Gathered, metrics: Sequence[str]) -> list[str]:
    """A sentence for every metric that some runs do not have, and one for those that some have before their end."""
    found = []
    for name in metrics:
        without = sum(value(run, name) is None for run in gathered.runs)
        if without:
            found.append(f"{name}: {without} of {len(gathered.runs)} runs have none")
    if any(step_of(run, name) is not None for run in gathered.runs for name in metrics):
        found.append("@N: as it was at step N, of a run that is not done")
    return found


def _cell(group: Sequence[Run], metric: str) -> Cell | None:
    done = [run for run in group if run.state == DONE]
    found = [number for run in done or group if (number := value(run, metric)) is not None]
    if not found:
        return None
    mean = max(found) if metric == MEMORY else fmean(found)
    steps = [step for run in done or group if (step := step_of(run, metric)) is not None]
    sd = stdev(found) if len(found) > 1 and metric != MEMORY else None
    return Cell(mean, sd, len(found), min(steps, default=None))
