"""The table of runs as HTML: one row each, varied settings first, the best value of each metric marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from prefopt.report.metric_names import spoken
from prefopt.report.runs import Gathered, Run
from prefopt.report.shown import MISSING, duration, number, size
from prefopt.report.values import step_of
from prefopt.report.varied import METHOD, text_of_values
from prefopt.sweeps.jobs import DONE

SHOWN_SETTINGS, SHOWN_METRICS = 6, 6
"""Columns of settings and of metrics that are not folded away at first."""


def runs_table(gathered: Gathered, data: Mapping[str, Any]) -> str:
    """The table and, above it, the box that chooses its columns. data: of `page_data`."""
    runs, names = gathered.runs, data["metrics"]
    metrics = [run.metrics for run in runs]
    texts = {key: text_of_values(runs, key) for key in gathered.varied}
    done = [run.metrics if run.state == DONE else {} for run in runs]
    ranked = done if any(done) else metrics  # what still goes on is not the best yet
    best = {name: _best(ranked, name, data["preference"][name]) for name in names}
    has_methods = len(data["methods"]) > 1 and METHOD not in gathered.varied
    folded = [place >= SHOWN_SETTINGS for place in range(len(gathered.varied))]
    hidden = [place >= SHOWN_METRICS or not _says_something(metrics, name) for place, name in enumerate(names)]
    heads = [_head("run", "text")]
    heads += [
        _head(data["shortKeys"][key], "mixed", title=key, kind="varied", hidden=off)
        for key, off in zip(gathered.varied, folded)
    ]
    heads += [_head("state", "text")] + [_head("method", "text")] * has_methods
    heads += [_head(name, "number", kind="metric", hidden=off) for name, off in zip(names, hidden)]
    heads += [_head("time", "number"), _head("peak memory", "number"), _head("remarks", "text")]
    rows = []
    for place, (run, shown) in enumerate(zip(runs, data["runs"], strict=True)):
        cells = [_run_cell(place, run, shown)]
        cells += [
            _setting_cell(run.varied.get(key), texts[key][place], off) for key, off in zip(gathered.varied, folded)
        ]
        cells.append(f'<td data-v="{escape(run.state)}">{state_badge(run.state)}</td>')
        if has_methods:
            cells.append(f'<td data-v="{escape(run.method)}">{escape(run.method) or MISSING}</td>')
        cells += [
            _number_cell(metrics[place].get(name), step_of(run, name), place in best[name], hidden=off)
            for name, off in zip(names, hidden)
        ]
        cells.append(_cell(run.seconds, duration(run.seconds)))
        cells.append(_cell(run.peak_memory_bytes, size(run.peak_memory_bytes)))
        remarks = _remarks(run)
        cells.append(f'<td class="remarks" data-v="{escape(remarks)}" title="{escape(remarks)}">{escape(remarks)}</td>')
        rows.append(f'<tr data-run="{place}">{"".join(cells)}</tr>')
    chooser = _chooser([*gathered.varied, *names], [*folded, *hidden])
    caption = f"{len(runs):,} {'run' if len(runs) == 1 else 'runs'}."
    caption += " ★ marks the best value of a metric" if any(best.values()) else ""
    if any(best.values()):
        caption += "; losses and margins of different methods do not compare." if len(data["methods"]) > 1 else "."
    if any(step_of(run, name) is not None for run in runs for name in run.metrics):
        caption += " @N: as it was at step N, of a run that is not done."
    return (
        f'{chooser}<div class="scroll tall" tabindex="0" role="region" aria-label="Table of runs"><table id="runs">'
        f"<caption>{caption}</caption><thead><tr>{''.join(heads)}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def state_badge(state: str) -> str:
    """A state as a word in its colour."""
    return f'<span class="state state-{escape(state)}">{escape(state)}</span>'


def breakable(name: str) -> str:
    """A metric's name, escaped, that may be broken behind each slash."""
    return escape(name).replace("/", "/<wbr>").replace("_", "_<wbr>")


def _head(name: str, kind_of_values: str, title: str = "", kind: str = "", hidden: bool = False) -> str:
    attributes = f' class="{kind}"' if kind else ""
    attributes += f' title="{escape(title or name)}"' + " hidden" * hidden
    metric, where = spoken(name)
    small = f"<small>{escape(where)}</small>" if where else ""
    button = f'<button type="button" data-kind="{kind_of_values}">{small}{breakable(metric)}</button>'
    return f'<th scope="col" aria-sort="none"{attributes}>{button}</th>'


def _run_cell(place: int, run: Run, shown: Mapping[str, Any]) -> str:
    """The name with the line that stands for it in every figure, and the box that draws or hides its curves."""
    where = str(run.folder) if run.folder else "no folder"
    # What the label says stands in the columns beside it.
    name, label = escape(shown["name"]), escape(shown["label"])
    return (
        f'<th scope="row" data-v="{name}"><span class="name">'
        f'<input type="checkbox" class="draw" aria-label="draw the curves of {label}">'
        f'<svg class="swatch" data-swatch="{place}" width="26" height="10" aria-hidden="true"></svg>'
        f'<button type="button" class="pick" aria-pressed="false" title="{escape(run.label)}&#10;{escape(where)}">'
        f"{name}</button></span></th>"
    )


def _setting_cell(value: Any, text: str, hidden: bool) -> str:
    """Sorted by the value where it is a number, by what is read else."""
    sortable = repr(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else text
    shown = escape(text)
    return f'<td class="varied" data-v="{escape(sortable)}" title="{shown}"{" hidden" * hidden}>{shown or MISSING}</td>'


def _cell(value: float | None, shown: str, hidden: bool = False, best: bool = False) -> str:
    sortable = "" if value is None or math.isnan(value) else repr(value)
    mark = '<span class="star" title="best">★</span>' if best else ""
    classes = "number best" if best else "number"
    return f'<td class="{classes}" data-v="{sortable}"{" hidden" * hidden}>{mark}{escape(shown)}</td>'


def _number_cell(value: float | None, step: int | None, best: bool, hidden: bool) -> str:
    """step: of a run that is not done, when it was measured."""
    mark = f" @{step}" if value is not None and step is not None else ""
    return _cell(value, number(value) + mark, hidden, best)


def _best(metrics: Sequence[Mapping[str, float]], name: str, way: int) -> set[int]:
    """Places of the runs with the best value; none where no direction is better, or all are equal."""
    values = {place: way * run[name] for place, run in enumerate(metrics) if math.isfinite(run.get(name, math.nan))}
    if not way or len(set(values.values())) < 2:
        return set()
    top = max(values.values())
    return {place for place, value in values.items() if value == top}


def _says_something(metrics: Sequence[Mapping[str, float]], name: str) -> bool:
    """Whether runs differ in it: the length of held-out responses is the same everywhere."""
    return len(metrics) == 1 or len({run.get(name) for run in metrics}) > 1


def _remarks(run: Run) -> str:
    found = [run.error] if run.error else []
    if run.nonfinite:
        found.append(f"{run.nonfinite:,} {'value' if run.nonfinite == 1 else 'values'} not finite")
    if run.broken:
        found.append(f"{run.broken:,} {'line' if run.broken == 1 else 'lines'} of metrics.jsonl unreadable")
    return "; ".join(found)


def _chooser(names: Sequence[str], hidden: Sequence[bool]) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" data-column="{place}"{" checked" * (not off)}> {breakable(name)}</label>'
        for place, (name, off) in enumerate(zip(names, hidden))
    )
    folded = sum(hidden)
    summary = f"Columns ({folded} folded away)" if folded else "Columns"
    columns = f'<details class="columns"><summary>{summary}</summary><div>{boxes}</div></details>' if names else ""
    return (
        '<div class="tools"><label class="grow">Filter <input type="search" id="filter" '
        'placeholder="any text of a row: dpo, failed, 0.1"></label><output id="filtered"></output>'
        '<button type="button" id="draw-these">Draw the first 40 of this order</button>'
        f'<button type="button" id="clear">Clear highlights</button>{columns}</div>'
    )
