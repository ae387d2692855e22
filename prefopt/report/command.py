"""`prefopt report`: what its words mean, and what is written where."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefopt.console import PLAIN
from prefopt.errors import UserError, did_you_mean
from prefopt.report.best import best_line
from prefopt.report.collect import gather
from prefopt.report.places import SWEEP, kind_of
from prefopt.report.rows import make_rows, missing
from prefopt.report.runs import Gathered, Run
from prefopt.report.values import headlines, known_metrics, resolve

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("table", "md", "csv", "json")
PAGE = "report.html"


@dataclass(frozen=True)
class Wanted:
    """The options of the command line. sort: a metric, with a minus in front for the worst first; "": the sweep's.

    metrics, objectives: names with commas. html: the page's file; "": report.html in the sweep's folder, where one
    sweep is reported, else here. figures: a folder, "" for none. compare: two of the runs, or two folders.
    """

    paths: Sequence[Path]
    sort: str = ""
    metrics: str = ""
    each_seed: bool = False
    form: str = "table"
    html: str = ""
    has_page: bool = True
    figures: str = ""
    objectives: str = ""
    compare: Sequence[str] = ()


def report(wanted: Wanted, console: Console) -> int:
    """Print the table or the comparison, write the page and the figures; 0.

    Raises: UserError for paths that hold no run, metrics that no run has, and options that have no effect.
    """
    _check(wanted)
    if wanted.compare:
        return _compare(wanted, console)
    gathered = gather(wanted.paths)
    known = known_metrics(gathered.runs)
    metrics = _names(wanted.metrics, known, "--metrics") or headlines(gathered)
    objectives = _names(wanted.objectives, known, "--objectives")
    if objectives and not 2 <= len(objectives) <= 3:
        raise UserError(f"--objectives takes two or three metrics, not {len(objectives)}", "--objectives A,B or A,B,C")
    is_turned = wanted.sort.startswith("-")
    sort = wanted.sort.removeprefix("-")
    sort = resolve(sort, known, "--sort") if sort else gathered.metric if gathered.metric in known else ""
    if sort and sort not in metrics:
        metrics = [sort, *metrics]
    rows = make_rows(gathered, metrics, sort, is_turned, wanted.each_seed)
    notes = [*gathered.notes, *missing(gathered, metrics)]
    from prefopt.report import table

    if wanted.form == "table":
        table.print_table(gathered, rows, metrics, console, sort)
        _say([f"note: {note}" for note in notes], console)
    elif wanted.form == "json":
        print(table.as_json(gathered, rows, metrics, notes), end="")
    else:
        print((table.as_markdown if wanted.form == "md" else table.as_csv)(gathered, rows, metrics), end="")
        _tell([f"note: {note}" for note in notes])
    best = best_line(gathered, rows, sort) if sort and not is_turned else ""
    said = [*([best] if best else []), *_write(wanted, gathered, objectives, metrics)]
    _say(said, console) if wanted.form == "table" else _tell(said)
    return 0


def _check(wanted: Wanted) -> None:
    if wanted.form not in FORMATS:
        raise UserError(f"--format {wanted.form}: there is no such format", did_you_mean(wanted.form, FORMATS))
    if wanted.html and not wanted.has_page:
        raise UserError("--html and --no-html contradict each other", "leave one of them out")
    if not wanted.compare:
        if not wanted.paths:
            raise UserError("report: of which runs?", "prefopt report runs/, for instance, or a sweep's folder")
        return
    given = {
        "--sort": wanted.sort,
        "--metrics": wanted.metrics,
        "--seeds": wanted.each_seed,
        "--html": wanted.html,
        "--figures": wanted.figures,
        "--objectives": wanted.objectives,
        "--no-html": not wanted.has_page,
    }
    if without_effect := [option for option, is_given in given.items() if is_given]:
        raise UserError(f"{without_effect[0]} has no effect beside --compare", "leave one of them out")
    if wanted.form not in ("table", "json"):
        raise UserError(f"--compare has no --format {wanted.form}", "--format json, or none for text")


def _compare(wanted: Wanted, console: Console) -> int:
    """Two runs: two folders, or two names or labels among the runs of the paths."""
    from prefopt.report.compare import compare
    from prefopt.report.show_compare import print_comparison

    gathered = gather(wanted.paths) if wanted.paths else None
    a, b = (_run(name, gathered) for name in wanted.compare)
    found = compare(a, b)
    if wanted.form == "json":
        print(json.dumps(found.as_json(), indent=1, ensure_ascii=False, default=str))
    else:
        print_comparison(found, console)
    return 0


def _run(name: str, gathered: Gathered | None) -> Run:
    """The run that a word of --compare means.

    Raises: UserError where it means none, or several.
    """
    if gathered is not None:
        runs = [run for run in gathered.runs if name in (run.name, run.label)]
        runs = runs or [run for run in gathered.runs if run.folder is not None and name == run.folder.name]
        if len(runs) == 1:
            return runs[0]
        if len(runs) > 1:
            names = ", ".join(run.called for run in runs)
            raise UserError(f"--compare {name}: several runs are called so", f"one of {names}")
    folder = Path(name)
    if not folder.exists() and gathered is not None:
        raise UserError(
            f"--compare {name}: there is no such run", did_you_mean(name, [run.called for run in gathered.runs])
        )
    found = gather([folder])
    if len(found.runs) != 1:
        raise UserError(
            f"--compare {name}: it holds {len(found.runs)} runs", f"one of them, for instance {found.runs[0].folder}"
        )
    return found.runs[0]


def _write(wanted: Wanted, gathered: Gathered, objectives: Sequence[str], metrics: Sequence[str]) -> list[str]:
    """The figures and the page; what to say of them."""
    said = []
    if wanted.figures:
        from prefopt.report.figures import write_figures

        written, nothing = write_figures(gathered, Path(wanted.figures), objectives, metrics)
        names = ", ".join(path.name for path in written if path.suffix == ".svg")
        said += [f"note: {note}" for note in nothing]
        said += [f"wrote {names} and the same as .png in {wanted.figures}"] if written else []
    if wanted.has_page:
        from prefopt.report.page import write_page

        is_sweep = len(wanted.paths) == 1 and kind_of(wanted.paths[0]) == SWEEP
        file = Path(wanted.html) if wanted.html else (wanted.paths[0] / PAGE if is_sweep else Path(PAGE))
        write_page(gathered, file, objectives)
        said.append(f"wrote {file}")
    return said


def _names(words: str, known: Sequence[str], option: str) -> list[str]:
    return list(dict.fromkeys(resolve(word.strip(), known, option) for word in words.split(",") if word.strip()))


def _say(lines: Sequence[str], console: Console) -> None:
    for line in lines:
        console.print(line, **PLAIN)


def _tell(lines: Sequence[str]) -> None:
    """To stderr: stdout is for whoever reads the format."""
    for line in lines:
        print(f"prefopt: {line}", file=sys.stderr)
