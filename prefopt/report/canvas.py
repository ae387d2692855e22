"""How a report's figures look and how they get onto the disk: matplotlib without its global state."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prefopt.durable import publish, sync
from prefopt.report.runs import Run
from prefopt.report.thin import thin
from prefopt.report.varied import SEED, shown

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by people with any kind of colour vision (Okabe and Ito 2008); without yellow, which is pale on white."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
"""Once all colours are used, the next dash begins with the first colour again."""

MANY = 40
"""Beyond so many runs lines are thin and plain, have no legend, and are pixels in the SVG."""

_POINTS = 300
"""Of a curve, at most: twice the pixels that it gets."""

_LEGEND = 14
"""Entries, at most."""

_INCHES_OF_A_LETTER = 0.068
"""Of the legend's 7.5 points, on average and a little more."""

_INCHES_OF_A_ROW = 0.17

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "prefopt",  # else the names of clip paths are others each time
    "svg.fonttype": "none",  # text stays text
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
}


def canvas(panels: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, 4.6 inches by 3.6 each."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6 * panels, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle("\n".join(wrap(title, 52 * panels)), fontsize=11)
        axes = [figure.add_subplot(1, panels, place + 1) for place in range(panels)]
    return figure, axes


def style_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Colour, dash and width of each run's lines; runs that differ in their seed alone look alike."""
    places: dict[object, int] = {}
    styles = []
    for run in runs:
        rest = tuple((key, shown(value)) for key, value in run.varied.items() if key != SEED)
        alike = (run.method, rest) if run.varied else run.label
        place = places.setdefault(alike, len(places))
        dash = DASHES[place // len(COLOURS) % len(DASHES)]
        styles.append({"color": COLOURS[place % len(COLOURS)], "linestyle": dash})
    return styles


def draw_curves(axes: Axes, runs: Sequence[Run], name: str) -> int:
    """Every run's curve of a metric over the steps; how many runs have one."""
    styled = [(run, style) for run, style in zip(runs, style_of(runs)) if run.curves.get(name)]
    having = [(run, style, thin(run.curves[name], _POINTS)) for run, style in styled]
    if len(runs) > MANY:
        # One artist for all of them: a thousand lines of their own take a minute.
        lines = LineCollection([points for _, _, points in having], linewidths=0.5, alpha=0.5, rasterized=True)
        lines.set_color([style["color"] for _, style, _ in having])
        axes.add_collection(lines)
        axes.autoscale_view()
    else:
        for run, style, points in having:
            marker = "o" if len(points) < 30 else ""
            xs, ys = zip(*points)
            axes.plot(xs, ys, label=_called(run), linewidth=1.3, marker=marker, markersize=2.5, **style)
    axes.set_xlabel("optimiser step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    return len(having)


def legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend below all panels, of the first runs where there are many."""
    handles: dict[str, Any] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels()):
            handles.setdefault(label, handle)
    if not handles or len(handles) > MANY:
        return
    labels = [_short(label) for label in list(handles)[:_LEGEND]]
    room = figure.get_figwidth() / _INCHES_OF_A_LETTER
    columns = max(1, min(len(labels), int(room / (max(map(len, labels)) + 6))))
    # A legend of many rows gets its own room: the panels keep their height.
    figure.set_figheight(figure.get_figheight() + _INCHES_OF_A_ROW * (-(-len(labels) // columns) - 1))
    figure.legend(
        list(handles.values())[:_LEGEND],
        labels,
        loc="outside lower center",
        ncols=columns,
        fontsize=7.5,
        frameon=False,
        title=f"the first {_LEGEND} of {len(handles)}" if len(handles) > _LEGEND else None,
        title_fontsize=7.5,
    )


def keep(figure: Figure, folder: Path, name: str) -> list[Path]:
    """NAME.svg and NAME.png (200 dots per inch), each there whole or not at all.

    Raises: OSError where the folder takes no files.
    """
    written = []
    for ending in ("svg", "png"):
        out = io.BytesIO()
        with matplotlib.rc_context(_STYLE):
            metadata = {"Date": None} if ending == "svg" else {"Software": None}
            figure.savefig(out, format=ending, dpi=200, metadata=metadata)
        path = folder / f"{name}.{ending}"
        draft = folder / f".{path.name}.tmp-{os.getpid()}"
        try:
            draft.write_bytes(out.getvalue())
            sync(draft)
            publish(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        written.append(path)
    return written


def _called(run: Run) -> str:
    """The name, and what the run varies."""
    name, label = run.called, run.label
    return label if name == label or label.endswith(f"({name})") else f"{name}: {label}"


def _short(label: str) -> str:
    """matplotlib leaves labels with a leading underscore out; long ones would push the panels away."""
    label = label.lstrip("_") or "run"
    return label if len(label) <= 56 else f"{label[:30]} … {label[-23:]}"
