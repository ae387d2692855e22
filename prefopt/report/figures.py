"""The figures of a report, as SVG and PNG: curves, margins, log-probabilities, heat map, Pareto front, likelihood."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from prefopt.disk import unwritten
from prefopt.durable import make_folder
from prefopt.report import canvas
from prefopt.report.curves import EVALUATION
from prefopt.report.pareto import front, hypervolume, worst
from prefopt.report.runs import Gathered, Run
from prefopt.report.values import direction, value
from prefopt.report.varied import SEED, short_names, shown, text_of_values
from prefopt.sweeps.jobs import DONE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "loss": ("Learning curves", (("loss", "loss"),)),
    "margins": (
        "Rewards of chosen over rejected responses",
        (("rewards/margin", "reward margin"), ("rewards/accuracy", "reward accuracy (share of pairs)")),
    ),
    "logps": (
        "Log-probability of the responses",
        (("logps/chosen", "chosen (nats per response)"), ("logps/rejected", "rejected (nats per response)")),
    ),
}
"""File to title and panels; a panel is a metric and the name of its axis."""

_ROWS = 4000
"""Pairs of an evaluation that the scatter shows."""


class _Nothing(Exception):
    """There is nothing to draw, and why."""


def write_figures(
    gathered: Gathered, folder: Path, objectives: Sequence[str], metrics: Sequence[str]
) -> tuple[list[Path], list[str]]:
    """Draw what there is to draw; the files, and a sentence for each figure that there is none of.

    objectives: two or three metrics for the Pareto front. metrics: the table's; the first one fills the heat map.

    Raises: RunError where the folder cannot be written.
    """
    makers: dict[str, Callable[[], Figure]] = {
        name: partial(_curves, gathered.runs, title, panels) for name, (title, panels) in PANELS.items()
    }
    makers["heatmap"] = lambda: heat_map(gathered, metrics[0] if metrics else "")
    if objectives:
        makers["pareto"] = lambda: pareto(gathered, objectives)
    makers["likelihood_length"] = lambda: likelihood_length(gathered.runs)
    written: list[Path] = []
    notes: list[str] = []
    try:
        make_folder(folder)
        for name, make in makers.items():
            try:
                figure = make()
            except _Nothing as nothing:
                notes.append(f"no figure {name}: {nothing}")
                continue
            written += canvas.keep(figure, folder, name)
    except OSError as error:
        raise unwritten(folder, error, "--figures") from None
    return written, notes


def _curves(runs: Sequence[Run], title: str, panels: Sequence[tuple[str, str]]) -> Figure:
    """Two panels for one metric, training and held out; one for each of several, held out where that was evaluated."""
    sets = _sets(runs)
    chosen: list[tuple[str, str, str]] = []
    for metric, axis in panels:
        held_out = [(f"{EVALUATION}{name}/{metric}", axis, f"held out ({name})") for name in sets]
        held_out = [panel for panel in held_out if any(len(run.curves.get(panel[0], ())) > 1 for run in runs)]
        trained = [(metric, axis, "training")] if any(run.curves.get(metric) for run in runs) else []
        chosen += [*trained, *held_out] if len(panels) == 1 else (held_out or trained)[:1]
    if not chosen:
        raise _Nothing("no run has logged " + " or ".join(metric for metric, _ in panels))
    figure, axes = canvas.canvas(len(chosen), title)
    for one, (metric, axis, where) in zip(axes, chosen):
        drawn = canvas.draw_curves(one, runs, metric)
        one.set_title(f"{where}, {drawn} {'run' if drawn == 1 else 'runs'}")
        one.set_ylabel(axis)
    canvas.legend(figure, axes)
    return figure


def heat_map(gathered: Gathered, metric: str) -> Figure:
    """A metric over the two settings that take most values; a cell is the mean over runs that are done.

    Raises: _Nothing where fewer than two settings vary or nobody has the metric.
    """
    runs = [run for run in gathered.runs if run.state == DONE and metric and value(run, metric) is not None]
    pairs = [(x, y) for place, x in enumerate(gathered.varied) for y in gathered.varied[:place] if SEED not in (x, y)]
    keys = max(pairs, key=lambda pair: _cells_of(runs, pair), default=("", ""))
    if not _cells_of(runs, keys):
        raise _Nothing("it takes two settings that vary among runs that are done")
    runs = [run for run in runs if all(key in run.varied for key in keys)]
    texts = [text_of_values(runs, key) for key in keys]
    columns, rows = (_levels(runs, key, of) for key, of in zip(keys, texts))
    cells: dict[tuple[int, int], list[float]] = {}
    for run, column, row in zip(runs, *texts):
        number = value(run, metric)
        assert number is not None
        cells.setdefault((rows.index(row), columns.index(column)), []).append(number)
    figure, axes = canvas.canvas(1, f"{metric}, mean over runs")
    means = {place: fmean(numbers) for place, numbers in cells.items()}
    grid = [[means.get((row, column), float("nan")) for column in range(len(columns))] for row in range(len(rows))]
    image = axes[0].imshow(grid, cmap="cividis", aspect="auto", origin="lower")
    axes[0].grid(visible=False)
    names = short_names(keys)
    is_wide = sum(map(len, columns)) > 45
    axes[0].set_xticks(range(len(columns)), columns, rotation=30 if is_wide else 0, ha="right" if is_wide else "center")
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].set_xlabel(names[keys[0]])
    axes[0].set_ylabel(names[keys[1]])
    if len(cells) <= 60:
        _write_cells(axes[0], means, image)
    figure.colorbar(image, label=metric)
    return figure


def pareto(gathered: Gathered, objectives: Sequence[str]) -> Figure:
    """Runs that are done over two objectives, or every two of three; the front, and the hypervolume beyond the worst.

    Raises: _Nothing where no run has all objectives.
    """
    found = {}
    for run in gathered.runs:
        values = [value(run, name) for name in objectives]
        if run.state == DONE and None not in values:
            found[run.called] = [number for number in values if number is not None]
    if not found:
        raise _Nothing(f"no run that is done has all of {', '.join(objectives)}")
    labels, points = list(found), list(found.values())
    ways = [direction(name, gathered) for name in objectives]
    best = front(points, ways)
    area = hypervolume(points, ways, worst(points, ways))
    without = len(gathered.runs) - len(points)
    title = f"Pareto front: {len(best)} of {len(points)} runs, hypervolume {area:.4g} beyond the worst of each"
    pairs = [(0, 1)] if len(objectives) == 2 else [(0, 1), (0, 2), (1, 2)]
    figure, axes = canvas.canvas(len(pairs), title if not without else f"{title} ({without} runs have not all)")
    for one, (x, y) in zip(axes, pairs):
        others = [place for place in range(len(points)) if place not in best]
        xs, ys = [points[place][x] for place in others], [points[place][y] for place in others]
        one.scatter(xs, ys, c="#999999", s=18, label="dominated")
        line = sorted(best, key=lambda place: points[place][x])
        xs, ys = [points[place][x] for place in line], [points[place][y] for place in line]
        form = "o-" if len(pairs) == 1 else "o"  # of three objectives a line through a projection would be no front
        one.plot(xs, ys, form, markersize=5, color=canvas.COLOURS[0], label="on the front")
        if len(best) <= 12 and len(pairs) == 1:
            for place in best:
                point = points[place][x], points[place][y]
                is_right = point[0] > (min(xs) + max(xs)) / 2  # its name is then on the left, inside the panel
                side_of, shift = ("right", -5) if is_right else ("left", 5)
                one.annotate(
                    labels[place][:40], point, (shift, 3), textcoords="offset points", ha=side_of, fontsize=6.5
                )
        for name, way, side in ((objectives[x], ways[x], one.set_xlabel), (objectives[y], ways[y], one.set_ylabel)):
            side(f"{name} ({'more' if way == 'maximize' else 'less'} is better)")
    canvas.legend(figure, axes)
    return figure


def likelihood_length(runs: Sequence[Run]) -> Figure:
    """Mean log-likelihood against the length of responses, of each evaluation that kept rows with both.

    Raises: _Nothing where none did.
    """
    found = []
    for run in runs:
        for evaluation in run.evaluations:
            points = _scored(evaluation.folder / "rows.jsonl")
            if any(points.values()):
                found.append((run.called, points))
    if not found:
        raise _Nothing("no evaluation has rows with log-probabilities and lengths (prefopt eval measure=preferences)")
    shown_ones = found[:6]
    more = f", the first {len(shown_ones)} of {len(found)}" if len(found) > len(shown_ones) else ""
    figure, axes = canvas.canvas(len(shown_ones), f"Likelihood and length of held-out responses{more}")
    for one, (label, points) in zip(axes, shown_ones):
        for (side, of), colour, marker in zip(points.items(), canvas.COLOURS, "ox"):
            xs, ys = [x for x, _ in of], [y for _, y in of]
            one.scatter(xs, ys, s=9, alpha=0.5, c=colour, marker=marker, label=side, rasterized=len(of) > 500)
        one.set_title(label[:60])
        one.set_xlabel("response length (tokens)")
        one.set_ylabel("mean log-likelihood (nats per token)")
    canvas.legend(figure, axes)
    return figure


def _scored(file: Path) -> dict[str, list[tuple[float, float]]]:
    """(tokens, nats per token) of chosen and rejected responses, of the first rows of an evaluation that has them."""
    points: dict[str, list[tuple[float, float]]] = {"chosen": [], "rejected": []}
    if not file.is_file():
        return points
    with open(file, encoding="utf-8", errors="replace", newline="\n") as lines:
        for number, line in enumerate(lines):
            if number >= _ROWS:
                break
            try:
                row: Any = json.loads(line)
            except ValueError:  # counted where rows are read to be computed with; here they are points of a cloud
                continue
            for side, of in points.items():
                said = row.get(side) if isinstance(row, dict) else None
                if isinstance(said, dict) and said.get("tokens") and said.get("logps") is not None:
                    of.append((said["tokens"], said["logps"] / said["tokens"]))
    return points


def _write_cells(axes: Axes, means: dict[tuple[int, int], float], image: Any) -> None:
    for (row, column), mean in means.items():
        colour = "w" if image.norm(mean) < 0.5 else "k"
        axes.text(column, row, f"{mean:.3g}", ha="center", va="center", color=colour, fontsize=7)


def _cells_of(runs: Sequence[Run], keys: tuple[str, str]) -> int:
    """How many combinations of two settings there are among runs; 0 where one of the two does not vary."""
    found = {tuple(shown(run.varied[key]) for key in keys) for run in runs if all(key in run.varied for key in keys)}
    return len(found) if all(len({pair[side] for pair in found}) > 1 for side in (0, 1)) else 0


def _levels(runs: Sequence[Run], key: str, texts: Sequence[str]) -> list[str]:
    """The values of a setting as they are shown, in order, numbers by size."""
    values = {text: run.varied[key] for run, text in zip(runs, texts)}
    is_number = all(type(of) in (int, float) for of in values.values())
    return sorted(values, key=lambda text: (values[text] if is_number else 0, text))


def _sets(runs: Sequence[Run]) -> list[str]:
    names = (name.split("/")[1] for run in runs for name in run.curves if name.startswith(EVALUATION))
    return list(dict.fromkeys(names))
