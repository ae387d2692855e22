"""The page's sections as HTML; each is there only where there is something to show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from prefopt.report.page_data import evaluation_names
from prefopt.report.page_table import breakable, runs_table, state_badge
from prefopt.report.runs import Evaluation, Gathered, Run
from prefopt.report.shown import MISSING, number
from prefopt.sweeps.jobs import STATES

ERRORS_SHOWN = 5
TABLE_ROWS = 200
TABLES_SHOWN = 6


class Section(NamedTuple):
    """name: the id. link: what the list of sections calls it. title: the heading. body: HTML."""

    name: str
    link: str
    title: str
    body: str


def sections(gathered: Gathered, data: Mapping[str, Any]) -> list[Section]:
    """Those that this report has, in the order of the page. data: of `page_data`."""
    curves, runs = data["curves"], data["runs"]
    found = [Section("table", "Runs", "Runs", runs_table(gathered, data))] if runs else []

    def add(name: str, link: str, title: str, there: Any, body: str) -> None:
        if there:
            found.append(Section(name, link, title, body))

    add("learning", "Learning", "Learning curves", _has(curves, "loss"), _smoothing() + _panels("learning"))
    rewards = _has(curves, "rewards/margin") or _has(curves, "rewards/accuracy")
    add("rewards", "Rewards", "Reward margin and accuracy", rewards, _panels("rewards"))
    logps = _has(curves, "logps/chosen") or _has(curves, "logps/rejected")
    add("logps", "Log-probabilities", "Log-probabilities of chosen and rejected responses", logps, _panels("logps"))
    drift = any(name.startswith("samples/") for name in curves)
    add("drift", "Drift", "Length and repetition of sampled answers", drift, _panels("drift"))
    add("curve", "Any curve", "Any curve", curves, _tools(("curve-name", "curve")) + _figure("curve"))
    swept = [key for key in data["varied"] if len({str(run["varied"][key]) for run in runs}) > 1]
    measured = swept and data["metrics"]
    heat_tools = _tools(("heat-x", "across"), ("heat-y", "down"), ("heat-metric", "metric"))
    add(
        "heat",
        "Heat map",
        "Metrics over settings",
        measured,
        heat_tools + _figure("heat") + '<p class="note" id="heat-note"></p>',
    )
    parallel = (
        f'{_tools(("parallel-metric", "metric"))}<div class="scroll"><div id="parallel" class="parallel"></div></div>'
    )
    add("parallel-section", "Settings", "All settings at once", measured and len(swept) > 1, parallel)
    trade_tools = _tools(("trade-x", "objective"), ("trade-y", "against"), ("trade-z", "and"))
    trade = trade_tools + '<p class="lead" id="trade-note"></p>' + _figure("trade")
    add("trade", "Trade-offs", "Trade-offs", data["fronts"], trade)
    whisker = _tools(("whisker-figure", "figure")) + _figure("whisker") + _figures_table(gathered, data)
    whisker += _evaluation_notes(gathered)
    add("figures", "Evaluations", "Evaluations", data["evaluations"], whisker)
    add(
        "scatter",
        "Likelihood",
        "Likelihood and length",
        data["scatter"],
        _tools(("scatter-of", "evaluation")) + _figure("scatter"),
    )
    tables = _tables(gathered, data)
    add("tables", "Tables", "Tables of evaluations", tables, tables)
    answers = _tools(("answers-left", "left"), ("answers-right", "right")) + _answers()
    add("answers", "Answers", "Sample answers", any(run["samples"] for run in runs), answers)
    details = '<div id="details-body"></div>'
    about = any(run["data"] is not None or run["manifest"] is not None for run in runs)
    add(
        "details",
        "One run",
        "One run: data, versions, how to repeat it",
        about,
        _tools(("details-run", "run")) + details,
    )
    return found


def head(gathered: Gathered, when: str, version: str, more_notes: Sequence[str]) -> str:
    """Title, counts by state, what failed and why, notes."""
    counts = Counter(run.state for run in gathered.runs)
    order = [*STATES, *sorted(set(counts) - set(STATES))]
    tiles = "".join(
        f'<li class="tile"><strong>{counts[state]:,}</strong>{state_badge(state)}</li>'
        for state in order
        if counts[state]
    )
    failed = [run for run in gathered.runs if run.state == "failed" or run.error]
    notes = "".join(f"<li>{escape(note)}</li>" for note in [*gathered.notes, *more_notes])
    return (
        f'<div class="titles"><div><h1>{escape(gathered.title)}</h1>'
        f'<p class="sub">{len(gathered.runs):,} {"run" if len(gathered.runs) == 1 else "runs"} · {escape(when)} · '
        f"prefopt {escape(version)}</p></div>"
        f'<ul class="tiles" aria-label="Runs by state">{tiles}</ul></div>'
        f"{_failures(failed)}" + (f'<ul class="notes" aria-label="Notes">{notes}</ul>' if notes else "")
    )


def _failures(failed: Sequence[Run]) -> str:
    if not failed:
        return ""
    rows = [
        f"<li>{state_badge(run.state)} <strong>{escape(run.called)}</strong> "
        f'<span class="why">{escape(run.error) or "no reason was recorded"}</span></li>'
        for run in failed
    ]
    shown, rest = "".join(rows[:ERRORS_SHOWN]), rows[ERRORS_SHOWN:]
    more = f"<details><summary>{len(rest):,} more</summary><ul>{''.join(rest)}</ul></details>" if rest else ""
    return f'<div class="failures" role="note" aria-label="Runs that failed"><ul>{shown}</ul>{more}</div>'


def _has(curves: Sequence[str], name: str) -> bool:
    return any(curve == name or curve.endswith(f"/{name}") for curve in curves)


def _tools(*choices: tuple[str, str]) -> str:
    """Drop-downs, filled by the script. choices: (id, label)."""
    labels = "".join(f'<label>{escape(label)} <select id="{name}"></select></label>' for name, label in choices)
    return f'<div class="tools">{labels}</div>'


def _smoothing() -> str:
    return (
        '<div class="tools"><label>smoothing of training curves '
        '<input type="range" id="smoothing" min="0" max="0.95" step="0.05" value="0"></label>'
        '<output id="smoothing-says">none</output></div><div class="legend" id="legend"></div>'
    )


def _panels(name: str) -> str:
    return f'<div class="panels" data-panels="{name}"></div>'


def _figure(name: str) -> str:
    return f'<div class="figure" data-figure="{name}"></div>'


def _answers() -> str:
    return (
        '<div id="answers-body"></div><div class="tools"><button type="button" id="answers-more">More answers</button>'
        '<output id="answers-count"></output></div>'
    )


def _figures_table(gathered: Gathered, data: Mapping[str, Any]) -> str:
    """Every figure of every evaluation, with its interval, folded away: the drawing shows one at a time."""
    rows, total = [], 0
    for run, shown in zip(gathered.runs, data["runs"], strict=True):
        for name, evaluation in zip(evaluation_names(run), run.evaluations):
            for key, figure in evaluation.figures.items():
                total += 1
                bounds = (
                    MISSING if figure.low is None or figure.high is None
                    else f"{number(figure.low)} to {number(figure.high)}"
                )  # fmt: skip
                rows.append(
                    f'<tr><th scope="row">{escape(shown["name"])}</th><td>{escape(name)}</td><td>{breakable(key)}</td>'
                    f'<td class="number">{number(figure.value)}</td><td class="number">{bounds}</td>'
                    f'<td class="number">{f"{figure.count:,}" if figure.count else MISSING}</td></tr>'
                )
    caption = "Figures with their 95 % intervals" + _cut(total)
    heads = ("run", "evaluation", "figure", "value", "interval", "count")
    table = _table(caption, heads, rows[:TABLE_ROWS])
    return f"<details><summary>All figures as a table</summary>{table}</details>"


def _evaluation_notes(gathered: Gathered) -> str:
    """What the measures said of their figures, and how many rows they left out; equal sentences once."""
    said: dict[str, None] = {}
    for run in gathered.runs:
        for evaluation in run.evaluations:
            said.update(dict.fromkeys(f"{evaluation.name}: {note}" for note in evaluation.notes))
            for reason, count in evaluation.left_out.items():
                said[f"{run.called}, {evaluation.name}: {count:,} left out: {reason}"] = None
    lines = "".join(f"<li>{escape(line)}</li>" for line in list(said)[:TABLE_ROWS])
    return f'<ul class="notes">{lines}</ul>' if lines else ""


def _cut(total: int) -> str:
    return f": the first {TABLE_ROWS} of {total:,}; `prefopt report --format csv` has all" if total > TABLE_ROWS else ""


def _tables(gathered: Gathered, data: Mapping[str, Any]) -> str:
    """Tables that measures made: contingency, models, categories."""
    found: list[str] = []
    left = 0
    for run, shown in zip(gathered.runs, data["runs"], strict=True):
        for name, evaluation in zip(evaluation_names(run), run.evaluations):
            for title in evaluation.tables:
                if len(found) >= TABLE_ROWS:
                    left += 1
                    continue
                found.append(_one_table(evaluation, title, f"{shown['name']} · {name} · {title}"))
    more = f'<p class="note">{left:,} more tables are in figures.json of their evaluations.</p>' if left else ""
    if not found:
        return ""
    first, rest = found[:TABLES_SHOWN], found[TABLES_SHOWN:]
    folded = f'<div class="cards">{"".join(rest)}</div>' if rest else ""
    folded = f"<details><summary>{len(rest):,} more</summary>{folded}</details>" if rest else ""
    return f'<div class="cards">{"".join(first)}</div>{folded}{more}'


def _one_table(evaluation: Evaluation, title: str, caption: str) -> str:
    rows = evaluation.tables[title]
    heads = list(dict.fromkeys(key for row in rows for key in row))
    lines = []
    for row in rows[:TABLE_ROWS]:
        cells = [_table_cell(row.get(key), is_first=place == 0) for place, key in enumerate(heads)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="card">{_table(caption + _cut(len(rows)), heads, lines)}</div>'


def _table_cell(value: Any, is_first: bool) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        shown, kind = number(value), ' class="number"'
    else:
        shown, kind = MISSING if value is None else escape(str(value)), ""
    return f'<th scope="row">{shown}</th>' if is_first else f"<td{kind}>{shown}</td>"


def _table(caption: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    columns = "".join(f'<th scope="col">{breakable(head)}</th>' for head in heads)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
