"""`prefopt report` on folders written by hand: the table, its formats, its order, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from report_bed import step, write_evaluation, write_run, write_sweep

from prefopt.cli import main
from prefopt.sweeps.jobs import Job

LOSS, ACCURACY = "eval/heldout/loss", "eval/heldout/rewards/accuracy"


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two rates with two seeds each, and one that failed."""
    for rate, seed, loss in ((1e-3, 1, 0.6), (1e-3, 2, 0.8), (2e-3, 1, 0.4), (2e-3, 2, 0.5)):
        changes = [("optim.lr", rate), ("train.seed", seed)]
        metrics = {LOSS: loss, ACCURACY: 1 - loss}
        write_run(tmp_path / "runs" / f"{rate}-{seed}", *changes, lines=[step(1, loss + 1)], metrics=metrics)
    ended = {"exit_code": 1, "message": "no memory | at all"}
    write_run(tmp_path / "runs" / "broken", ("optim.lr", 3e-3), ("train.seed", 1), lines=[step(1, 2.0)], ended=ended)
    return tmp_path / "runs"


def report(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What the command prints without a page, on stdout."""
    assert main(["report", *map(str, words), "--no-html"]) == 0
    return capsys.readouterr().out


def test_runs_that_differ_in_their_seed_alone_are_one_row_with_mean_and_deviation(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads(report(capsys, runs, "--format", "json"))["rows"]
    by_rate = {row["varied"]["optim.lr"]: row for row in rows}
    assert by_rate[1e-3]["metrics"][LOSS] == {
        "mean": pytest.approx(0.7), "sd": pytest.approx(0.02**0.5), "count": 2, "step": None
    }  # fmt: skip
    assert by_rate[1e-3]["state"] == "2 done"
    assert [run["seed"] for run in by_rate[1e-3]["runs"]] == [1, 2]
    assert by_rate[3e-3]["metrics"][LOSS] is None
    assert by_rate[3e-3]["error"] == "no memory | at all"


def test_seeds_shows_each(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(report(capsys, runs, "--seeds", "--format", "json"))["rows"]
    assert [row["label"] for row in rows][:2] == ["lr=0.001 seed=1", "lr=0.001 seed=2"]
    assert [row["run"] for row in rows][:2] == ["0.001-1", "0.001-2"]
    assert len(rows) == 5


@pytest.mark.parametrize(
    ("sort", "rates"),
    [
        (["--sort", LOSS], [2e-3, 1e-3, 3e-3]),
        (["--sort", f"-{LOSS}"], [1e-3, 2e-3, 3e-3]),  # what has no value stays last
        (["--sort", "rewards/accuracy"], [2e-3, 1e-3, 3e-3]),
        (["--sort=-rewards/accuracy"], [1e-3, 2e-3, 3e-3]),
        ([], [1e-3, 2e-3, 3e-3]),
    ],
)
def test_rows_are_sorted_best_first_and_a_minus_turns_them(
    runs: Path, sort: list[str], rates: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads(report(capsys, runs, *sort, "--format", "json"))["rows"]
    assert [row["varied"]["optim.lr"] for row in rows] == rates


def test_the_terminal_has_eighty_columns_and_says_what_it_left_out(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = report(capsys, runs, "--metrics", f"loss,rewards/accuracy,{LOSS},peak_memory_bytes,seconds")
    assert max(map(len, out.split("\nno room")[0].splitlines())) <= 80
    assert "runs: 5 runs of dpo: 4 done, 1 failed" in out
    assert "0.7 ± 0.14" in out
    assert "broken  failed: no memory | at all" in out
    assert f"note: {LOSS}: 1 of 5 runs have none" in out
    assert "–" in out


def test_csv_has_every_digit_and_parses_back(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(report(capsys, runs, "--format", "csv", "--seeds"))))
    assert [float(row[LOSS]) for row in rows[:4]] == [0.6, 0.8, 0.4, 0.5]
    assert (rows[4][LOSS], rows[4]["error"], rows[4]["state"]) == ("", "no memory | at all", "failed")
    assert rows[0]["seconds"] == "61.5"


def test_markdown_parses_back_and_bars_are_escaped(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = report(capsys, runs, "--format", "md").splitlines()
    cells = [line.replace("\\|", "").count("|") for line in lines]
    assert len(set(cells)) == 1
    assert lines[1].replace("|", "").replace("-", "").strip() == ""
    assert "no memory \\| at all" in lines[4]
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 0.001-1 and 1 more", "| 0.002-1 and 1 more", "| broken"]


def test_of_many_settings_that_vary_the_last_come_behind_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ("optim.lr", "optim.eps", "optim.weight_decay", "train.epochs", "data.max_length", "data.eval_size")
    for place in range(2):
        changes = [(key, place + 1) for key in keys]
        write_run(tmp_path / "r" / f"run-{place}", *changes, metrics={ACCURACY: 0.7 + place / 10, LOSS: 0.5})
    head = report(capsys, tmp_path / "r", "--format", "md").splitlines()[0].strip("| ").split(" | ")
    assert head[:2] + head[-6:] == ["run", "method", ACCURACY, "time", "memory", "optim.eps", keys[2], keys[3]]
    out = report(capsys, tmp_path / "r")
    assert "run-0" in out
    assert "accuracy" in out.split("no room")[0]


def test_methods_side_by_side_show_no_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dpo", "orpo"):
        metrics = {LOSS: 0.5, ACCURACY: 0.7, "eval/heldout/nll": 0.3}
        write_run(tmp_path / "r" / name, ("loss", {"name": name}), metrics=metrics)
    rows = json.loads(report(capsys, tmp_path / "r", "--format", "json"))["rows"]
    assert list(rows[0]["metrics"]) == [ACCURACY, "eval/heldout/nll"]


def test_without_evaluation_the_last_training_step_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a", lines=[step(1, 0.7), step(2, 0.25)], metrics={})
    (row,) = json.loads(report(capsys, tmp_path / "a", "--format", "json"))["rows"]
    assert row["metrics"]["loss"]["mean"] == 0.25


def test_figures_of_evaluations_are_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "a", metrics={LOSS: 0.5})
    write_evaluation(run / "eval" / "winrate-1", "winrate", {"win_rate": 0.6, "ties": 0.1, "more": 1.0})
    (row,) = json.loads(report(capsys, run, "--format", "json"))["rows"]
    assert list(row["metrics"]) == [LOSS, "winrate/win_rate", "winrate/ties"]


def test_a_sweep_is_sorted_by_its_own_metric_and_direction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = []
    for number, rate, value in ((1, 0.001, 5.0), (2, 0.002, 3.0)):
        write_run(tmp_path / "runs" / str(number), ("optim.lr", rate), metrics={"eval/a/length/chosen": value})
        jobs.append(Job(number, [], [f"optim.lr={rate}"], str(number), f"runs/{number}", state="done", exit_code=0))
    folder = write_sweep(tmp_path, *jobs, metric="eval/a/length/chosen", direction="minimize")
    rows = json.loads(report(capsys, folder, "--format", "json"))["rows"]
    assert [(row["run"], row["label"]) for row in rows] == [("2", "lr=0.002"), ("1", "lr=0.001")]


def test_the_word_of_the_table_sorts_by_the_held_out_metric_and_the_best_run_is_named_with_its_folder(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_run(tmp_path / "more", ("optim.lr", 4e-3), lines=[step(1, 1.0, rewards__accuracy=1.0)], metrics={})
    out = report(capsys, runs, tmp_path / "more", "--sort", "accuracy").replace("\n", " ")
    assert f"best by {ACCURACY}: 0.55, mean of 2 of {runs}/0.002-1, {runs}/0.002-2 (lr=0.002)" in out
    assert "best by" not in report(capsys, runs, "--sort", "-accuracy")


def test_no_run_is_the_best_by_a_loss_whose_settings_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for lam in (0.1, 1.0):
        metrics = {LOSS: lam, ACCURACY: lam}
        write_run(tmp_path / "r" / f"lam-{lam}", ("loss", {"name": "orpo", "lam": lam}), metrics=metrics)
    assert f"no best by {LOSS}: loss.lam differs" in report(capsys, tmp_path / "r", "--sort", LOSS)
    assert "lam-1.0 (lam=1)" in report(capsys, tmp_path / "r", "--sort", ACCURACY)


def test_a_value_of_a_run_that_is_not_done_says_at_which_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = {"exit_code": 1, "message": "no memory"}
    write_run(tmp_path / "r" / "a", ("train.epochs", 2), lines=[{"step": 40, ACCURACY: 0.9}], ended=ended)
    write_run(tmp_path / "r" / "b", metrics={ACCURACY: 0.7})
    out = report(capsys, tmp_path / "r", "--sort", "accuracy")
    assert "0.9 @40" in out
    assert "0.7 @" not in out
    assert "@N: as it was at step N, of a run that is not done" in out
    assert f"0.7 of {tmp_path}/r/b" in out.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "of which runs?"),
        (["RUNS", "--sort", "rewards/accurcy"], "did you mean"),
        (["RUNS", "--metrics", "loss,nothing"], "no run has such a metric"),
        (["RUNS", "--format", "xml"], "there is no such format"),
        (["RUNS", "--html", "x.html", "--no-html"], "contradict"),
        (["RUNS", "--objectives", "loss"], "two or three metrics, not 1"),
        (["RUNS", "--config-dir", "x"], "reads runs and no recipes"),
        (["RUNS", "--comparre", "x"], "did you mean '--compare'"),
        (["RUNS", "--compare", "a", "b"], "--compare a: there is no such run"),
        (["RUNS", "--compare", "broken", "broken", "--sort", "loss"], "--sort has no effect beside --compare"),
        (["RUNS", "--compare", "broken", "broken", "--format", "csv"], "--compare has no --format csv"),
        (["--compare", "RUNS", "RUNS"], "it holds 5 runs"),
        (["RUNS/nowhere"], "there is no such folder"),
        (["RUNS", "--compare", "a"], "see prefopt report --help"),
    ],
)
def test_misuse_is_explained(
    runs: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["report", *(word.replace("RUNS", str(runs)) for word in words)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_a_short_name_of_several_metrics_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a", metrics={"eval/one/loss": 0.5, "eval/two/loss": 0.4})
    assert main(["report", str(tmp_path / "a"), "--no-html", "--sort", "loss"]) == 2
    assert "one of eval/one/loss, eval/two/loss" in capsys.readouterr().err


def test_the_page_lies_here_or_in_the_sweeps_folder_or_where_it_is_asked_for(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    assert main(["report", str(runs)]) == 0
    assert "wrote report.html" in capsys.readouterr().out
    assert "lr=0.001" in (place / "report.html").read_text(encoding="utf-8")
    job = Job(1, [], ["optim.lr=0.001"], "a", str(runs / "0.001-1"), state="done", exit_code=0)
    sweep = write_sweep(tmp_path, job)
    assert main(["report", str(sweep), "--format", "csv"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("run,method,")
    assert f"wrote {sweep / 'report.html'}" in captured.err
    assert main(["report", str(sweep), "--html", "mine.html"]) == 0
    assert sorted(path.name for path in place.iterdir()) == ["mine.html", "report.html"]
    assert (sweep / "report.html").exists()
