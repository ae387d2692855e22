"""Which run `prefopt report` calls the best, when it calls none so and why, and which columns always have room."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from report_bed import write_run, write_sweep

from prefopt.cli import main
from prefopt.report.collect import gather
from prefopt.report.page import page
from prefopt.sweeps.jobs import Job

ACCURACY, MARGIN, NLL = "eval/heldout/rewards/accuracy", "eval/heldout/rewards/margin", "eval/heldout/nll"


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def data_report(content: str = "a", file: str = "pairs.jsonl", **counts: int) -> dict[str, Any]:
    """A data report with a held-out set of 8 pairs out of the training file. content: "" of an older version."""
    about = {"rows": 8, "pairs": 8, "responses": 16, "tokens": 400, **counts}
    about |= {"content": content} if content else {}
    tokenizer = {"fingerprint": "t", "chat_template_sha256": "c"}
    return {"tokenizer": tokenizer, "sets": {"heldout": about}, "sources": [{"set": "train", "path": f"data/{file}"}]}


def report(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What the command prints without a page, folded lines joined."""
    assert main(["report", *map(str, words), "--no-html"]) == 0
    return capsys.readouterr().out.replace("\n", " ")


def two_runs(home: Path, first: dict[str, Any] | None, second: dict[str, Any] | None) -> Path:
    for name, rate, value, about in (("simpo", 1e-3, 1.0, first), ("onpol", 2e-3, 0.75, second)):
        metrics = {ACCURACY: value, NLL: 2 - value, "eval/other/nll": value}
        write_run(home / "r" / name, ("optim.lr", rate), metrics=metrics, report=about)
    return home / "r"


@pytest.mark.parametrize(
    "other",
    [
        data_report("b"),
        data_report("", rows=4),
        data_report("a", pairs=12),
        data_report("a", tokens=401),  # the same prompts and chosen responses with other rejected ones
    ],
)
def test_no_run_is_the_best_by_a_set_that_was_other_rows(
    other: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = two_runs(tmp_path, data_report(), other)
    for metric in ("accuracy", "eval/heldout/nll"):
        out = report(capsys, runs, "--sort", metric)
        assert re.search(r"no best by eval/heldout/\S+: the rows of heldout differ", out)
        assert "note: metrics of eval/heldout are not comparable between these runs, whose rows of it differ:" in out
    assert "best by eval/other/nll: 0.75 of" in report(capsys, runs, "--sort", "eval/other/nll")


def test_the_note_says_how_many_rows_of_which_file_each_run_was_measured_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = two_runs(tmp_path, data_report(), data_report("b", "own.jsonl", rows=4))
    assert "4 rows of own.jsonl (onpol), 8 rows of pairs.jsonl (simpo)" in report(capsys, runs)


def test_files_of_one_name_are_told_apart_in_the_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = two_runs(tmp_path, data_report(), data_report("b", "own/pairs.jsonl", rows=4))
    assert "4 rows of own/pairs.jsonl (onpol), 8 rows of data/pairs.jsonl (simpo)" in report(capsys, runs)


def test_no_value_of_a_set_of_other_rows_has_a_star_on_the_page(tmp_path: Path) -> None:
    marked = r'class="number best" data-v="([^"]*)"'
    same = two_runs(tmp_path / "same", data_report(), data_report())
    assert sorted(re.findall(marked, page(gather([same])))) == ["0.75", "1.0", "1.0"]
    others = two_runs(tmp_path / "others", data_report(), data_report("b"))
    assert re.findall(marked, page(gather([others]))) == ["0.75"]  # of the other set


@pytest.mark.parametrize("other", [None, data_report(""), data_report("a", pairs=0, responses=8, tokens=200)])
def test_rows_of_which_nothing_says_that_they_are_others_are_the_same(
    other: dict[str, Any] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = two_runs(tmp_path, data_report(), other)
    out = report(capsys, runs, "--sort", "accuracy")
    assert f"best by {ACCURACY}: 1 of {runs}/simpo (lr=0.001)" in out
    assert "not comparable" not in out


def test_other_tokens_are_no_other_rows_where_the_tokenizer_is_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = data_report(tokens=500) | {"tokenizer": {"fingerprint": "u", "chat_template_sha256": "c"}}
    assert "best by" in report(capsys, two_runs(tmp_path, data_report(), other), "--sort", "accuracy")


def test_runs_that_tie_with_the_best_are_counted_behind_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, value in enumerate((1.0, 1.0, 0.5, 1.0, 1.0)):
        write_run(tmp_path / "r" / f"run-{place}", ("optim.lr", place + 1), metrics={ACCURACY: value})
    out = report(capsys, tmp_path / "r", "--sort", "accuracy")
    assert f"best by {ACCURACY}, with 3 others of the same value: 1 of {tmp_path}/r/run-0 (lr=1)" in out


def test_a_best_that_is_withheld_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for beta in (0.1, 0.5):
        metrics = {MARGIN: beta, ACCURACY: beta, "eval/heldout/length/chosen": beta}
        loss = {"name": "dpo", "beta": beta}
        write_run(tmp_path / "r" / f"beta-{beta}", ("loss", loss), metrics=metrics)
    wanted = f"no best by {MARGIN}: loss.beta differs; there is one by --sort {ACCURACY}"
    assert wanted in report(capsys, tmp_path / "r", "--sort", "margin")
    said = report(capsys, tmp_path / "r", "--sort", "length/chosen")
    assert "no best by eval/heldout/length/chosen: neither more nor less of it is better" in said
    write_run(tmp_path / "r" / "orpo", ("loss", {"name": "orpo"}), metrics={MARGIN: 1.0})
    assert f"no best by {MARGIN}: methods differ (dpo, orpo)" in report(capsys, tmp_path / "r", "--sort", "margin")


KEYS = ("optim.lr", "optim.eps", "optim.weight_decay", "data.max_length", "data.max_prompt_length", "train.max_steps")


def varied_runs(home: Path) -> Path:
    """Three runs that differ in six settings by three values each, and in beta by two."""
    for place in range(3):
        loss = {"name": "dpo", "beta": 0.1 if place < 2 else 0.5}
        changes = [("loss", loss), *((key, 100 + place) for key in KEYS)]
        metrics = {MARGIN: 0.1234 + place, ACCURACY: 1.0, "eval/heldout/loss": 0.69}
        write_run(home / "r" / f"run-{place}", *changes, metrics=metrics)
    return home / "r"


def test_in_eighty_columns_settings_of_the_loss_and_what_is_sorted_by_have_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = report(capsys, varied_runs(tmp_path), "--sort", "margin")
    table, _, left_out = out.partition("no room in 80 columns for")
    assert "beta" in table
    assert "margin" in table
    assert all(name in left_out for name in ("max_steps", "accuracy"))  # the same for all, and how long they were
    assert "beta" not in left_out.split(";")[0]


def test_what_a_sweep_varies_has_room_in_forty_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    runs = varied_runs(tmp_path)
    jobs = [
        Job(n, [], [f"train.max_steps={100 + n}"], str(n), str(runs / f"run-{n}"), state="done", exit_code=0)
        for n in range(3)
    ]
    out = report(capsys, write_sweep(tmp_path, *jobs), "--sort", "margin")
    assert "max_steps" in out.split("no room")[0]
    assert "1.123" in out.split("no room")[0]
