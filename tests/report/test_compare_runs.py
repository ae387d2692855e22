"""Two runs side by side: what differs in them, and the first step at which their numbers part."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from report_bed import PACKAGES, step, write_run

from prefopt.cli import main
from prefopt.report.compare import align, compare
from prefopt.report.read_run import read_run

REPORT: dict[str, Any] = {
    "fingerprint": "a" * 64,
    "tokenizer": {"fingerprint": "t", "chat_template_sha256": None},
    "sets": {"train": {"rows": 10, "fingerprint": "b" * 64}},
    "sources": [{"set": "train", "path": "pairs.jsonl", "read": 12, "kept": 10, "dropped": {"too long": 2}}],
}


def test_the_first_difference_of_any_size_and_the_first_beyond_rounding_are_told() -> None:
    a = [(1, 0.5), (2, 0.25), (3, 0.125), (4, 0.0625)]
    b = [(1, 0.5), (2, 0.25 * (1 + 1e-7)), (3, 0.125 * (1 + 1e-5)), (4, 0.0625)]
    found = align("loss", a, b)
    assert found.first is not None
    assert found.beyond is not None
    assert (found.first.step, found.beyond.step, found.shared) == (2, 3, 4)
    assert found.beyond.relative == pytest.approx(1e-5, rel=1e-3)


def test_steps_that_one_run_lacks_are_counted_and_not_compared() -> None:
    found = align("loss", [(1, 0.5), (2, 0.4), (3, 0.3)], [(1, 0.5), (3, 0.3), (4, 0.1), (5, 0.1)])
    assert (found.shared, found.only, found.first) == (2, (1, 2), None)


def test_settings_versions_and_data_that_differ_are_listed_with_where_they_came_from(tmp_path: Path) -> None:
    command = ["prefopt", "train", "recipe=quickstart", "optim.lr=2e-3", "loss=orpo"]
    a = write_run(tmp_path / "a", ("optim.lr", 1e-3), report=REPORT)
    changes = [("optim.lr", 2e-3), ("loss", {"name": "orpo", "lam": 0.1}), ("train.epochs", 2.0), ("dir", "b")]
    other = json.loads(json.dumps(REPORT))
    other["sources"][0] |= {"kept": 9, "dropped": {"too long": 2, "empty response": 1}}
    b = write_run(tmp_path / "b", *changes, report=other, packages={**PACKAGES, "torch": "2.7.0"}, command=command)
    found = compare(read_run(a)[0], read_run(b)[0])
    settings = {of.key: (of.values, of.origins[1]) for of in found.settings}
    assert settings["optim.lr"] == ((1e-3, 2e-3), "optim.lr=2e-3")
    assert settings["loss.name"] == (("dpo", "orpo"), "loss=orpo")
    assert settings["train.epochs"] == ((1.0, 2.0), "recipe=quickstart")
    assert "dir" not in settings
    assert [(of.key, of.values) for of in found.versions] == [("torch", ("2.6.0", "2.7.0"))]
    assert {of.key: of.values for of in found.data} == {
        "sources.0.kept": (10, 9),
        "sources.0.dropped.empty response": ("nothing", 1),
    }


def test_runs_of_the_same_numbers_are_equal_bit_for_bit_whatever_time_they_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, rate in (("a", 100.0), ("b", 200.0)):
        lines = [step(1, 0.7, grad_norm=1.0, tokens_per_second=rate), step(2, 0.6, grad_norm=0.9)]
        write_run(tmp_path / name, lines=lines, report=REPORT)
    assert main(["report", "--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out
    assert "settings: the same\n\nversions: the same\n\ndata: the same" in out
    assert "all 3 metrics are equal bit for bit at all 2 steps" in out


def test_a_comparison_parses_back_and_differences_are_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "a", lines=[step(1, 0.7), step(2, 0.6)])
    write_run(tmp_path / "b", ("optim.lr", 5e-4), lines=[step(1, 0.7), step(2, 0.65), step(3, 0.6)])
    words = ["report", str(tmp_path), "--compare", "lr=5e-07", "b"]
    assert main(words) == 2  # the label is that of the settings: 1e-06 is the default
    capsys.readouterr()
    assert main(["report", str(tmp_path), "--compare", "a", "b", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["equal"] is False
    curves = {curve["name"]: curve for curve in found["curves"]}
    assert (curves["loss"]["first"]["step"], curves["loss"]["only"]) == (2, [0, 1])
    assert curves["lr"]["first"] is None
    assert main(["report", str(tmp_path), "--compare", "a", "b"]) == 0
    assert "they differ from step 2 on, by more than 1e-06 from step 2 on" in capsys.readouterr().out


def test_a_run_without_a_number_is_compared_by_what_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", lines=[step(1, 0.5)])
    assert main(["report", "--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out
    assert "the runs have no metric in common" in out
    assert "note: a: any number of its training is not known" in out


def test_curves_are_called_equal_at_the_steps_that_both_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = "eval/heldout/loss"
    write_run(
        tmp_path / "a",
        lines=[step(1, 0.7, **{held: 1.0}), step(2, 0.6, nll=1.0), step(3, 0.5, entropy=1.0, **{held: 0.4})],
    )
    write_run(tmp_path / "b", lines=[step(1, 0.7, **{held: 1.0}), step(2, 0.65, nll=1.0), step(4, 0.5, entropy=2.0)])
    assert main(["report", "--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out
    assert f"  equal bit for bit at the one step that is in both: {held}\n" in out
    assert "  equal bit for bit at the 2 steps that are in both: lr\n" in out
    assert "  equal bit for bit: nll\n" in out
    assert "  at no step that is in both: entropy\n" in out


def test_what_a_later_start_changed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / "r" / name, lines=[step(1, 0.5)], starts=2) for name in "ab"]
    manifest = json.loads((runs[0] / "manifest.json").read_text(encoding="utf-8"))
    changes = [{"key": "optim.lr", "old": 0.1, "new": 1e-6, "after_step": 60}]
    manifest["starts"][1] = {**manifest["starts"][1], "changes": changes}
    (runs[0] / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert main(["report", "--compare", *map(str, runs)]) == 0
    assert "note: a: optim.lr was 0.1 up to step 60\n" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "r"), "--no-html"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "note: settings shown are those of the last start: a: optim.lr was 0.1 up to step 60" in said
