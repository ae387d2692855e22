"""The figures of a report: which there are, and that what they show is what the runs hold."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from report_bed import step, write_evaluation, write_run

from prefopt.cli import main
from prefopt.report.canvas import COLOURS, DASHES, style_of
from prefopt.report.collect import gather
from prefopt.report.figures import heat_map, pareto

LOSS, ACCURACY = "eval/heldout/loss", "eval/heldout/rewards/accuracy"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A grid of two settings with two seeds."""
    for rate in (1e-3, 2e-3):
        for beta in (0.1, 0.5, 1.0):
            for seed in (1, 2):
                changes = [("optim.lr", rate), ("loss.beta", beta), ("train.seed", seed)]
                more = {"rewards__margin": beta, "rewards__accuracy": 0.7, "logps__chosen": -5, "logps__rejected": -7}
                lines = [
                    {"step": 0, LOSS: 1.0},
                    *(step(n, beta / n, **more) for n in range(1, 4)),
                    {"step": 3, LOSS: 0.5},
                ]
                metrics = {LOSS: beta + seed / 10 + 100 * rate, ACCURACY: beta / 2}
                write_run(tmp_path / "runs" / f"{rate}-{beta}-{seed}", *changes, lines=lines, metrics=metrics)
    return tmp_path / "runs"


def test_every_figure_there_is_something_for_is_there_as_svg_and_png(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = next(iter(sorted(runs.iterdir())))
    evaluation = write_evaluation(run / "eval" / "preferences-1", "preferences", {"a/loss": 0.5})
    pair = {"id": "x:1", "chosen": {"logps": -10.0, "tokens": 5}, "rejected": {"logps": -30.0, "tokens": 6}}
    (evaluation / "rows.jsonl").write_text(json.dumps(pair) + "\n")
    words = [str(runs), "--no-html", "--figures", str(tmp_path / "figures"), "--objectives", f"{LOSS},{ACCURACY}"]
    assert main(["report", *words]) == 0
    assert "wrote loss.svg, margins.svg" in capsys.readouterr().out
    names = ("heatmap", "likelihood_length", "logps", "loss", "margins", "pareto")
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        f"{name}.{ending}" for name in names for ending in ("png", "svg")
    ]
    assert (tmp_path / "figures" / "loss.png").read_bytes().startswith(PNG)
    assert "optimiser step" in (tmp_path / "figures" / "loss.svg").read_text()
    assert "hypervolume" in (tmp_path / "figures" / "pareto.svg").read_text()


def test_the_same_runs_give_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert main(["report", str(runs), "--no-html", "--figures", str(tmp_path / name)]) == 0
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_a_figure_there_is_nothing_for_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a", lines=[step(1, 0.5)])
    assert main(["report", str(tmp_path / "a"), "--no-html", "--figures", str(tmp_path / "f")]) == 0
    out = capsys.readouterr().out
    assert "no figure heatmap: it takes two settings that vary" in out
    assert "no figure logps: no run has logged logps/chosen" in out
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == ["loss.png", "loss.svg"]


def test_a_cell_of_the_heat_map_is_the_mean_over_seeds(runs: Path) -> None:
    axes = heat_map(gather([runs]), LOSS).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("lr", "beta")
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0.1", "0.5", "1"]
    grid = axes.get_images()[0].get_array()
    assert grid is not None
    assert grid[0].tolist() == pytest.approx([0.1 + 0.15 + 0.1, 0.1 + 0.15 + 0.2])


def test_the_pareto_figure_states_front_and_hypervolume(tmp_path: Path) -> None:
    # accuracy up, loss down: (0.9, 0.5) and (0.6, 0.2) are the front, (0.5, 0.6) is the worst of each
    for name, accuracy, loss in (("a", 0.9, 0.5), ("b", 0.6, 0.2), ("c", 0.5, 0.6)):
        write_run(tmp_path / name, ("optim.lr", accuracy), metrics={ACCURACY: accuracy, LOSS: loss})
    title = pareto(gather([tmp_path]), [ACCURACY, LOSS]).get_suptitle()
    area = 0.4 * 0.1 + 0.1 * 0.3
    assert title.replace("\n", " ").startswith(f"Pareto front: 2 of 3 runs, hypervolume {area:.4g} beyond")


def test_seeds_look_alike_and_more_runs_than_colours_get_dashes(tmp_path: Path) -> None:
    for place in range(len(COLOURS) + 1):
        for seed in (1, 2):
            write_run(tmp_path / f"{place}-{seed}", ("optim.lr", 1e-3 * (place + 1)), ("train.seed", seed))
    styles = style_of(gather([tmp_path]).runs)
    assert styles[0] == styles[1] == {"color": COLOURS[0], "linestyle": DASHES[0]}
    assert styles[-1] == {"color": COLOURS[0], "linestyle": DASHES[1]}
    assert len({str(style) for style in styles}) == len(COLOURS) + 1
