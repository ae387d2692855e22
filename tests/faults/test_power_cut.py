"""A whole run, and the power cut before each of its operations on files: what is on the disk goes on or is done."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from faults.power_cut import power_cuts
from tiny import make_model, make_pairs, overrides

from prefopt.config import compose
from prefopt.launch import prepare_data, write_folder
from prefopt.ranks import plan_world
from prefopt.run_folder import State, clear_before_anew, find_state, make_folder
from prefopt.train import checkpoint
from prefopt.train.loop import Trainer


def test_the_disk_forgets_what_was_not_synced(tmp_path: Path) -> None:
    """The negative control: a program that does not sync loses bytes on the one disk and names on the other."""
    root, seen = tmp_path / "root", []
    root.mkdir()

    def look(there: Path, moment: str) -> None:
        seen.append((moment.split(",")[0], {p.name: p.read_text() for p in there.iterdir()}))

    with power_cuts(root, tmp_path, look):
        (root / "draft").write_text("whole")
        (root / "draft").rename(root / "file")
    assert seen == [
        ("names late", {}),
        ("names early", {"draft": ""}),
        ("names late", {}),
        ("names early", {"file": ""}),
    ]

    seen.clear()
    with power_cuts(root, tmp_path, look):
        with open(root / "file", "rb") as file:
            os.fsync(file.fileno())
        descriptor = os.open(root, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    assert seen[-2:] == [("names late", {"file": "whole"}), ("names early", {"file": "whole"})]


def digests(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.slow
def test_a_run_is_on_the_disk_whole_or_not_at_all_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "cache"))
    model, pairs = make_model(tmp_path / "model"), make_pairs(tmp_path / "pairs.jsonl")
    runs = tmp_path / "runs"
    runs.mkdir()
    more = ["loss=dpo", "train.max_steps=5", "train.save_every=1", "train.eval_every=2", "train.keep_checkpoints=2"]
    run = compose(overrides(model, pairs, runs / "run", *more, "train.best_metric=eval/heldout/rewards/margin"))
    prepared = prepare_data(run, tmp_path / "cache")
    steps: dict[str, list[int]] = {"names late": [], "names early": []}
    models: list[dict[str, str]] = []

    def check(there: Path, moment: str) -> None:
        folder, disk = there / "run", moment.split(",")[0]
        state = find_state(folder, run, prepared.fingerprint)
        found = checkpoint.newest(folder / "checkpoints")
        assert found is None or not found[2], (moment, found)
        step = 0 if found is None else found[1].step
        assert step >= max(steps[disk], default=0), moment
        steps[disk].append(step)
        if step:
            assert state is not State.NEW, moment
            lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            assert [line["step"] for line in lines if "lr" in line][:step] == list(range(1, step + 1)), moment
            assert {line["step"] for line in lines if "lr" not in line} >= {s for s in (0, 2, 4, 5) if s <= step}
        if state is State.DONE:
            models.append(digests(folder / "model"))

    with power_cuts(runs, tmp_path, check):
        make_folder(runs / "run")
        write_folder(runs / "run", State.NEW, run, run, prepared, plan_world(run), ["train"])
        trainer = Trainer(runs / "run")
        trainer.run()
        trainer.engine.close()
    for seen in steps.values():
        assert seen[-1] == 5
        assert set(seen) == {0, 1, 2, 3, 4, 5}
        assert len(seen) > 100
    assert models
    assert all(one == digests(runs / "run" / "model") for one in models)
    assert "model.safetensors" in models[-1]


def test_a_folder_that_another_run_takes_over_is_at_every_moment_one_that_either_takes(tmp_path: Path) -> None:
    model, pairs = make_model(tmp_path / "model"), make_pairs(tmp_path / "pairs.jsonl")
    runs, more = tmp_path / "runs", [f"data.cache_dir={tmp_path / 'cache'}", "loss=orpo"]
    first = compose(overrides(model, pairs, runs / "run", *more))
    other = compose(overrides(model, pairs, runs / "run", *more, "optim.lr=2e-3", "data.eval_size=0"))
    prepared = [prepare_data(run, tmp_path / "cache") for run in (first, other)]
    runs.mkdir()
    make_folder(runs / "run")
    write_folder(runs / "run", State.NEW, first, first, prepared[0], plan_world(first), ["train"])
    for name in ("exit.json", "token_budget.json"):
        (runs / "run" / name).write_text("{}")
    seen = []

    def check(there: Path, moment: str) -> None:
        found = [find_state(there / "run", run, data.fingerprint) for run, data in zip((first, other), prepared)]
        assert set(found) <= {State.ANEW, State.RESUMED}, moment
        seen.append(found)

    with power_cuts(runs, tmp_path, check):
        clear_before_anew(runs / "run")
        write_folder(runs / "run", State.ANEW, other, other, prepared[1], plan_world(other), ["train"])
    assert seen[0] == [State.RESUMED, State.ANEW]
    assert seen[-1] == [State.ANEW, State.RESUMED]
    assert not {"exit.json", "token_budget.json", "held_out.jsonl"} & {path.name for path in (runs / "run").iterdir()}
