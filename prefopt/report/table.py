"""The table of a report: for a terminal, and as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefopt.report.rows import Cell, Row
from prefopt.report.runs import Gathered, Run
from prefopt.report.shown import MISSING, duration, number, size
from prefopt.report.values import EVALUATION, MEMORY, SECONDS
from prefopt.report.varied import METHOD, SEED, short_names, text_of_values
from prefopt.report.verdict import loss_settings
from prefopt.sweeps.jobs import STATES

if TYPE_CHECKING:
    from rich.console import Console

_WIDEST = 22
"""Columns that a varied value gets on a terminal before it is folded."""

_FIRST_SETTINGS = 3
"""Varied settings that come before what was measured: all that a sweep varies, then those of the loss, then those of
most values. The others come last."""

_HOW_LONG = ("train.max_steps", "train.epochs")
"""Settings that say little besides the steps and the time of a run."""

_NEVER = 990
"""Columns kept with this or more are not left out, however narrow the terminal is."""

_LESS = 700
"""What a column is kept less for that says the same in every row."""


@dataclass
class _Column:
    """A column of the terminal. keep: those with the smallest number are left out first."""

    heading: str
    cells: list[str]
    keep: int
    is_number: bool = False

    @property
    def width(self) -> int:
        from rich.cells import cell_len

        lines = [*self.heading.split("\n"), *self.cells]
        return min(max(cell_len(line) for line in lines), _WIDEST)


def print_table(
    gathered: Gathered, rows: Sequence[Row], metrics: Sequence[str], console: Console, sort: str = ""
) -> None:
    """The table as wide as the terminal is; what has no room is named below it, errors and notes too.

    sort: the metric that the rows are sorted by. It always has room, and what a sweep varies has.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from prefopt.console import PLAIN

    shared = _shared_set(metrics).removesuffix("/")
    console.print(summary(gathered) + (f"; metrics of {shared}" if shared else ""), **PLAIN)
    columns = _columns(gathered, rows, metrics, sort)
    left_out = _fit(columns, console.width)
    made = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        made.add_column(column.heading, justify="right" if column.is_number else "left", no_wrap=column.is_number)
    for place in range(len(rows)):
        made.add_row(*(Text(column.cells[place], overflow="fold") for column in columns))
    console.print(made)
    for row in rows:
        if row.error:
            console.print(f"{row.name}  {row.state}: {row.error}", **PLAIN)
    if left_out:
        names = ", ".join(column.heading.replace("\n", "") for column in left_out)
        console.print(f"no room in {console.width} columns for {names}; --format csv has everything", **PLAIN)


def summary(gathered: Gathered) -> str:
    """What is reported: "4 runs of orpo: 3 done, 1 failed"."""
    runs = gathered.runs
    methods = dict.fromkeys(run.method for run in runs if run.method)
    counts = [(sum(run.state == state for run in runs), state) for state in STATES]
    states = ", ".join(f"{count} {state}" for count, state in counts if count)
    of = f" of {', '.join(methods)}" if methods else ""
    return f"{gathered.title}: {len(runs)} {'run' if len(runs) == 1 else 'runs'}{of}: {states}"


def as_markdown(gathered: Gathered, rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """A table of GitHub's Markdown; every column, nothing folded, bars of the content escaped."""
    head, body = _everything(gathered, rows, metrics)
    lines = [head, ["---"] * len(head), *([_markdown(cell) for cell in line] for line in body)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_csv(gathered: Gathered, rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """Comma-separated, a heading first, all digits; a cell that a run has nothing for is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = _settings(gathered)
    writer.writerow(["run", "method", *keys, "state", "runs", *_with_sd(metrics), SECONDS, MEMORY, "error", "folder"])
    for row in rows:
        run = row.first
        numbers = [digits for name in metrics for digits in _digits(row.values.get(name))]
        totals = [_digits(row.values.get(SECONDS))[0], int(row.values[MEMORY].mean) if MEMORY in row.values else ""]
        varied = [_all_values(row, key) for key in keys]
        folders = " ".join(str(one.folder) for one in row.runs if one.folder is not None)
        line = [row.name, run.method, *varied, row.state, len(row.runs), *numbers, *totals, row.error, folders]
        writer.writerow(line)
    return out.getvalue()


def as_json(gathered: Gathered, rows: Sequence[Row], metrics: Sequence[str], notes: Sequence[str]) -> str:
    """The same as one object; a metric that a run does not have is null."""
    plain = [
        {
            "run": row.name,
            "label": row.label,
            "method": row.first.method,
            "varied": {key: of for key, of in row.first.varied.items() if key != SEED or len(row.runs) == 1},
            "state": row.state,
            "error": row.error,
            "metrics": {name: _object(row.values.get(name)) for name in metrics},
            SECONDS: row.values[SECONDS].mean if SECONDS in row.values else None,
            MEMORY: int(row.values[MEMORY].mean) if MEMORY in row.values else None,
            "runs": [
                {
                    "name": run.called,
                    "label": run.label,
                    "seed": run.settings.get(SEED, run.varied.get(SEED)),
                    "state": run.state,
                    "folder": None if run.folder is None else str(run.folder),
                }
                for run in row.runs
            ],
        }
        for row in rows
    ]
    whole = {"title": gathered.title, "varied": list(gathered.varied), "rows": plain, "notes": list(notes)}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _columns(gathered: Gathered, rows: Sequence[Row], metrics: Sequence[str], sort: str) -> list[_Column]:
    """Every column that the terminal could show. Kept longest: name, what is swept and sorted by, settings of the loss,
    state; left out first: what is the same in every row, how long runs were and took, settings of few values."""
    names = short_names(gathered.varied)
    firsts = [row.first for row in rows]
    of_loss = loss_settings(gathered)

    def of_settings(keys: Sequence[str], others: int) -> list[_Column]:
        found = []
        for place, key in enumerate(keys):
            keep = _NEVER + len(keys) if key in gathered.swept else 980 if key in of_loss else others
            keep = 300 if key in _HOW_LONG and key not in gathered.swept else keep
            if key == SEED and all(len(row.runs) > 1 for row in rows):
                continue
            texts = text_of_values(firsts, key)
            cells = [MISSING if not text or _is_of_several(row, key) else text for text, row in zip(texts, rows)]
            found.append(_Column(names[key], cells, keep - place))
        return found

    keys, rest = _in_order(gathered, firsts)
    columns = [_Column("run", [row.name for row in rows], 2000)]
    if len({run.method for run in firsts}) > 1:
        columns.append(_Column("method", [run.method or MISSING for run in firsts], 985))
    columns += of_settings(keys, 900)
    if any(len(row.runs) > 1 for row in rows):
        columns.append(_Column("runs", [str(len(row.runs)) for row in rows], 970, is_number=True))
    columns.append(_Column("state", [row.state for row in rows], 975))
    shared = _shared_set(metrics)
    for place, name in enumerate(metrics):
        heading = name.removeprefix(shared).replace("/", "/\n")
        keep = 1999 if name == sort else 950 if place == 0 else 800 - place
        columns.append(_Column(heading, [_short(row.values.get(name)) for row in rows], keep, True))
    columns.append(_Column("time", [_time(row.values.get(SECONDS)) for row in rows], 420, True))
    columns.append(_Column("memory", [_memory(row.values.get(MEMORY)) for row in rows], 410, True))
    columns += of_settings(rest, 400)
    for column in columns:
        if len(rows) > 1 and len(set(column.cells)) == 1 and column.keep < _NEVER:
            column.keep -= _LESS
    return columns


def _fit(columns: list[_Column], width: int) -> list[_Column]:
    """Take away columns until the rest has room, or must stay; those taken."""
    left_out: list[_Column] = []
    while len(columns) > 2 and sum(column.width + 2 for column in columns) > width:
        least = min(columns, key=lambda column: column.keep)
        if least.keep >= _NEVER:
            break
        columns.remove(least)
        left_out.append(least)
    return left_out


def _everything(gathered: Gathered, rows: Sequence[Row], metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    firsts = [row.first for row in rows]
    keys, rest = _in_order(gathered, firsts)
    texts = {key: text_of_values(firsts, key) for key in (*keys, *rest)}
    has_error = any(row.error for row in rows)
    head = ["run", "method", *keys, "state", "runs", *metrics, "time", "memory", *rest]
    head += ["error"] if has_error else []
    body = []
    for place, row in enumerate(rows):
        varied = {key: MISSING if not of[place] or _is_of_several(row, key) else of[place] for key, of in texts.items()}
        before = [varied[key] for key in keys]
        cells = [row.name, row.first.method or MISSING, *before, row.state, str(len(row.runs))]
        cells += [_short(row.values.get(name)) for name in metrics]
        cells += [_time(row.values.get(SECONDS)), _memory(row.values.get(MEMORY))]
        cells += [varied[key] for key in rest]
        body.append([*cells, *([row.error] if has_error else [])])
    return head, body


def _is_of_several(row: Row, key: str) -> bool:
    """Whether a row has several values of a setting, which only the seed can have."""
    return key == SEED and len(row.runs) > 1


def _all_values(row: Row, key: str) -> str:
    """Every value that runs of a row have for a setting, a blank between them; "" where they have none."""
    return " ".join(dict.fromkeys(_plain(run.varied[key]) for run in row.runs if key in run.varied))


def _in_order(gathered: Gathered, runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """The varied settings that come before what was measured, and those that come after it.

    What takes more values says more; of those that take as many the first ones do. How long a run was says least.
    """
    keys = _settings(gathered)
    of_loss = loss_settings(gathered)

    def says(key: str) -> tuple[bool, bool, bool, int]:
        count = len(set(text_of_values(runs, key)))
        return key not in gathered.swept, key not in of_loss, key in _HOW_LONG, -count

    first = set(sorted(keys, key=says)[: max(_FIRST_SETTINGS, len(gathered.swept))])
    return [key for key in keys if key in first], [key for key in keys if key not in first]


def _settings(gathered: Gathered) -> list[str]:
    return [key for key in gathered.varied if key != METHOD]


def _shared_set(metrics: Sequence[str]) -> str:
    """The beginning eval/SET/ of all held-out metrics, where they are of one set; it then stands above the table."""
    sets = {"/".join(name.split("/")[:2]) + "/" for name in metrics if name.startswith(EVALUATION)}
    return sets.pop() if len(sets) == 1 else ""


def _short(cell: Cell | None) -> str:
    if cell is None:
        return MISSING
    shown = number(cell.mean) if cell.sd is None else f"{number(cell.mean)} ± {cell.sd:.2g}"
    return shown if cell.step is None else f"{shown} @{cell.step}"


def _time(cell: Cell | None) -> str:
    return duration(None if cell is None else cell.mean)


def _memory(cell: Cell | None) -> str:
    return size(None if cell is None else int(cell.mean))


def _with_sd(metrics: Sequence[str]) -> list[str]:
    return [heading for name in metrics for heading in (name, f"{name} sd")]


def _digits(cell: Cell | None) -> list[str]:
    """Mean and standard deviation with every digit."""
    if cell is None:
        return ["", ""]
    return [repr(cell.mean), "" if cell.sd is None else repr(cell.sd)]


def _object(cell: Cell | None) -> dict[str, Any] | None:
    return None if cell is None else {"mean": cell.mean, "sd": cell.sd, "count": cell.count, "step": cell.step}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
