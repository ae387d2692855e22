"""What the page's figures are drawn from, as one JSON value: no number of it is NaN, every text is kept once."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from prefopt.report.metric_names import metric_names, rank, spoken
from prefopt.report.page_fronts import fronts
from prefopt.report.page_scatter import scatter
from prefopt.report.runs import Gathered, Run
from prefopt.report.thin import thin
from prefopt.report.varied import short_names, text_of_values
from prefopt.report.verdict import preferences

POINTS = 300
"""Of one curve, where there are few runs."""
ALL_POINTS = 60_000
"""Of one metric over all runs: more would make the page slow to open."""
FEWEST_POINTS = 40
SAMPLES_PER_RUN = 50
SAMPLE_CHARACTERS = 6_000_000
"""Of answers in all; a run whose answers come after that has them in its folder only."""
SHOWN_RUNS = 40
"""Curves drawn at first. Others are drawn when they are chosen."""


def evaluation_names(run: Run) -> list[str]:
    """Names that tell a run's evaluations apart: of those with one name, their folders'."""
    names = [evaluation.name for evaluation in run.evaluations]
    return [one.name if names.count(one.name) == 1 else one.folder.name for one in run.evaluations]


def page_data(gathered: Gathered, objectives: Sequence[str]) -> dict[str, Any]:
    """The value. Curves are [steps, values]; texts and blocks (reports, manifests) are named by place in a list."""
    texts, blocks = _Pool(), _Pool()
    names = metric_names(gathered.runs)
    metrics = [run.metrics for run in gathered.runs]
    texts_of = {key: text_of_values(gathered.runs, key) for key in gathered.varied}
    ways = preferences(gathered, names, objectives)
    methods = list(dict.fromkeys(run.method for run in gathered.runs))
    places = dict.fromkeys(methods, 0)
    limit = min(POINTS, max(FEWEST_POINTS, ALL_POINTS // max(1, len(gathered.runs))))
    runs: list[dict[str, Any]] = []
    for number, run in enumerate(gathered.runs):
        color, dash = _look(number, methods.index(run.method), places[run.method], len(methods))
        places[run.method] += 1
        runs.append(
            {
                "name": run.called,
                "label": run.label,
                "method": run.method,
                "state": run.state,
                "error": run.error,
                "folder": str(run.folder) if run.folder else "",
                "color": color,
                "dash": dash,
                "varied": {key: _plain(run.varied.get(key), texts_of[key][number]) for key in gathered.varied},
                "metrics": {name: finite(value) for name, value in metrics[number].items()},
                "curves": {name: _curve(points, limit) for name, points in run.curves.items() if points},
                "samples": _samples(run, texts),
                "data": blocks.place(_sources(run.data_report)) if run.data_report else None,
                "manifest": blocks.place(_manifest(run)) if run.manifest else None,
            }
        )
    drawn = dict.fromkeys(name for run in runs for name in run["curves"])
    return {
        "runs": runs,
        "varied": list(gathered.varied),
        "shortKeys": short_names(gathered.varied),
        "metrics": names,
        "preference": ways,
        "spoken": {
            name: " ".join([metric, f"({where})"] if where else [metric])
            for name in {**ways, **drawn}
            for metric, where in [spoken(name)]
        },
        "curves": sorted(drawn, key=rank),
        "methods": methods,
        "evaluations": [
            {
                "run": number,
                "name": name,
                "figures": {
                    key: [finite(f.value), finite(f.low), finite(f.high), f.count]
                    for key, f in evaluation.figures.items()
                },
            }
            for number, run in enumerate(gathered.runs)
            for name, evaluation in zip(evaluation_names(run), run.evaluations)
        ],
        "scatter": scatter(gathered.runs),
        "fronts": fronts(metrics, ways, objectives),
        "shownRuns": SHOWN_RUNS,
        "texts": texts.values,
        "blocks": [json.loads(block) for block in blocks.values],
    }


def finite(value: float | None) -> float | None:
    """Five significant digits, which no figure shows more of; None for what JSON cannot say."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.5g}")


def samples_left_out(gathered: Gathered, data: Mapping[str, Any]) -> int:
    """Runs whose answers are in their folder only."""
    return sum(bool(run.samples) and not shown["samples"] for run, shown in zip(gathered.runs, data["runs"]))


class _Pool:
    """Texts, each kept once: the runs of a sweep have the same prompts and the same answers before training."""

    def __init__(self) -> None:
        self.values: list[str] = []
        self.characters = 0
        self._places: dict[str, int] = {}

    def place(self, text: str) -> int:
        if text not in self._places:
            self._places[text] = len(self.values)
            self.values.append(text)
            self.characters += len(text)
        return self._places[text]


def _look(number: int, method: int, place: int, num_methods: int) -> tuple[int, int]:
    """Colour and dash. One method: colours, and when they are used up the next dash. Several: a colour for each, and
    dashes tell its runs apart."""
    if num_methods == 1:
        return number % 8, number // 8 % 6
    return method % 8, place % 6


def _curve(points: Sequence[tuple[int, float]], limit: int) -> list[list[Any]]:
    kept = thin(points, limit)
    return [[step for step, _ in kept], [finite(value) for _, value in kept]]


def _samples(run: Run, texts: _Pool) -> list[dict[str, int]]:
    if texts.characters > SAMPLE_CHARACTERS:
        return []
    keys = ("prompt", "before", "after", "chosen")
    rows = run.samples[:SAMPLES_PER_RUN]
    return [{key: texts.place(str(row[key])) for key in keys if row.get(key) is not None} for row in rows]


def _sources(report: Mapping[str, Any]) -> str:
    """What became of the rows of each source: [{set, path, read, kept, left_out: {reason: count}, ...}]."""
    found = []
    for source in report.get("sources", ()):
        dropped = {
            reason: about["count"] if isinstance(about, Mapping) else about
            for reason, about in source.get("dropped", {}).items()
        }
        kept = {key: source.get(key) for key in ("set", "path", "format", "read", "kept", "pairs", "responses")}
        truncated = source.get("truncated") or {}
        notes = list(source.get("conversions") or ())
        found.append({**kept, "left_out": dropped, "truncated": sum(truncated.values()), "notes": notes})
    return json.dumps(found)


def _manifest(run: Run) -> str:
    """Of the last start: [[name, value], ...] of the machine, and of the versions, and the command."""
    manifest = run.manifest or {}
    starts = manifest.get("starts") or [{}]
    last = starts[-1]
    world = last.get("world") or manifest.get("world") or {}
    git = last.get("git") or {}
    about = [
        ("started", last.get("time")),
        ("starts", len(manifest.get("starts", ()))),
        ("device", world.get("device")),
        ("processes", world.get("num_processes")),
        ("engine", world.get("engine")),
        ("platform", last.get("platform")),
        ("python", last.get("python")),
        ("git", f"{git['commit'][:12]}{', with changes' if git.get('dirty') else ''}" if git.get("commit") else None),
        ("identity", manifest.get("identity")),
        ("data", str(manifest.get("data_fingerprint") or "")[:16] or None),
    ]
    return json.dumps(
        {
            "about": [[name, str(value)] for name, value in about if value not in (None, 0)],
            "packages": sorted((last.get("packages") or {}).items()),
            "command": shlex.join(str(word) for word in last.get("command") or ()),
            "repeat": shlex.join(["prefopt", "train", "--repeat", str(run.folder)]) if run.folder else "",
        }
    )


def _plain(value: Any, text: str) -> Any:
    """A number or a truth as it is, so that figures can place it; else as a person writes it, or None."""
    is_plain = isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else text or None
