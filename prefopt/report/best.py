"""Which run of a report is the best by the metric that it is sorted by, and where it lies; or why none is."""

from __future__ import annotations

from collections.abc import Sequence

from prefopt.report.rows import Row
from prefopt.report.runs import Gathered
from prefopt.report.shown import number
from prefopt.report.verdict import withheld
from prefopt.sweeps.jobs import DONE

_LABEL = 80
"""Characters of what a run varies that are said besides its folder; of more the table says it."""


def best_line(gathered: Gathered, rows: Sequence[Row], metric: str) -> str:
    """ "best by eval/heldout/loss: 0.41 of runs/a (lr=0.001)": the first row with a run that is done; or why none is.

    rows: best first by `metric`, as `make_rows` sorts them. Nothing is the best where no direction is better: a length,
    a loss whose settings differ, a set whose rows differ. Of seeds all folders are named; rows with exactly the same
    value are counted.
    """
    if why := withheld(gathered, metric):
        return f"no best by {metric}: {why}{_instead(gathered, rows)}"
    ended = [row for row in rows if metric in row.values and any(run.state == DONE for run in row.runs)]
    if not ended:
        return f"no best by {metric}: no run that is done has it"
    row = ended[0]
    done = [run for run in row.runs if run.state == DONE]
    where = ", ".join(str(run.folder or run.called) for run in done)
    varied = f" ({row.label})" if row.first.varied and len(row.label) <= _LABEL else ""
    mean = f", mean of {len(done)}" if len(done) > 1 else ""
    ties = sum(other.values[metric].mean == row.values[metric].mean for other in ended) - 1
    tied = f", with {ties} {'other' if ties == 1 else 'others'} of the same value" if ties else ""
    return f"best by {metric}{tied}: {number(row.values[metric].mean)}{mean} of {where}{varied}"


def _instead(gathered: Gathered, rows: Sequence[Row]) -> str:
    """The first metric of the table by which there is a best, as what to do; empty where there is none."""
    shown = dict.fromkeys(metric for row in rows for metric in row.values)
    other = next((metric for metric in shown if not withheld(gathered, metric)), "")
    return f"; there is one by --sort {other}" if other else ""
