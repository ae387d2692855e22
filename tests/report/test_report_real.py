"""`prefopt report` on what `prefopt train` really writes: a sweep of the quickstart, and a run that is repeated."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import prefopt

from prefopt.cli import main
from prefopt.report.collect import gather

pytestmark = [pytest.mark.slow, pytest.mark.long]

RATES = ("0.001", "0.003")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of four steps that differ in their rate, and the first of them once more by its card's command."""
    place = tmp_path_factory.mktemp("real")
    words = ["recipe=quickstart", f"optim.lr={','.join(RATES)}", "train.max_steps=4", "train.eval_every=2"]
    words += ["sample.count=4", "sample.every=2"]
    done = prefopt(["train", "-m", *words], place / "cache", cwd=place)
    assert done.returncode == 0, done.stderr
    first = next(run.folder for run in gather([place / "sweeps"]).runs if run.varied["optim.lr"] == 0.001)
    card = (place / first / "model" / "README.md").read_text(encoding="utf-8")
    (command,) = [line for line in card.split("\n") if line.startswith("prefopt train --repeat ")]
    done = prefopt([*command.split()[1:], f"dir={place / 'again'}"], place / "cache", cwd=place)
    assert done.returncode == 0, done.stderr
    return place


def test_the_sweep_is_shown_with_what_training_measured(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep,) = (home / "sweeps").iterdir()
    assert main(["report", str(sweep), "--no-html", "--sort", "loss", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["varied"]["optim.lr"] for row in rows] == [0.003, 0.001]
    for row in rows:
        result = json.loads((Path(row["runs"][0]["folder"]) / "result.json").read_text(encoding="utf-8"))
        assert row["metrics"]["eval/heldout/loss"]["mean"] == result["metrics"]["eval/heldout/loss"]
        assert row["seconds"] == result["seconds"]
        assert row["peak_memory_bytes"] > 2**20
        assert (row["method"], row["state"]) == ("orpo", "done")


def test_a_run_has_everything_that_a_report_shows(home: Path) -> None:
    run = next(run for run in gather([home / "sweeps"]).runs if run.varied["optim.lr"] == 0.003)
    assert [step for step, _ in run.curves["loss"]] == [1, 2, 3, 4]
    assert [step for step, _ in run.curves["eval/heldout/loss"]] == [0, 2, 4]
    assert (len(run.samples), run.broken, run.nonfinite) == (4, 0, 0)
    assert run.data_report is not None
    assert run.manifest is not None
    assert run.settings["model.path"].startswith("demo://")


def test_another_rate_is_seen_at_its_first_update_and_in_the_loss_of_the_step_after(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Warm-up begins at 0: the first update is that of step 2, and the loss of a step is measured before its update.
    assert main(["report", str(home / "sweeps"), "--compare", "lr=0.001", "lr=0.003", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(of["key"], of["origins"]) for of in found["settings"]] == [
        ("optim.lr", ["optim.lr=0.001", "optim.lr=0.003"])
    ]
    first = {curve["name"]: curve["first"] and curve["first"]["step"] for curve in found["curves"]}
    assert (first["lr"], first["loss"], first["grad_norm"], first["eval/heldout/loss"]) == (2, 3, 3, 2)
    assert (found["versions"], found["data"]) == ([], [])


def test_the_command_of_the_model_card_gives_the_same_numbers(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = next(run.folder for run in gather([home / "sweeps"]).runs if run.varied["optim.lr"] == 0.001)
    assert main(["report", "--compare", str(first), str(home / "again")]) == 0
    out = capsys.readouterr().out
    assert "settings: the same" in out
    assert "metrics are equal bit for bit at all 4 steps" in out
