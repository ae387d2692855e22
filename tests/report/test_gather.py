"""What a report finds in folders, in whatever state they are."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from report_bed import step, write_evaluation, write_run, write_sweep

from prefopt.errors import UserError
from prefopt.lock import process_of
from prefopt.report.collect import gather
from prefopt.report.curves import Curve
from prefopt.sweeps.jobs import Job

HELD_OUT = "eval/heldout/loss"


def test_a_run_is_read_with_its_settings_curves_result_and_memory(tmp_path: Path) -> None:
    lines = [{"step": 0, HELD_OUT: 0.9}, step(1, 0.7), {"step": 1, "samples/length": 5.0}, step(2, 0.6)]
    folder = write_run(tmp_path / "a", lines=lines, metrics={HELD_OUT: 0.5})
    (run,) = gather([folder]).runs
    assert (run.label, run.method, run.state, run.error) == ("a", "dpo", "done", "")
    assert run.curves["loss"] == [(1, 0.7), (2, 0.6)]
    assert run.metrics == {HELD_OUT: 0.5, "samples/length": 5.0}
    assert (run.seconds, run.peak_memory_bytes, run.starts) == (61.5, 2**30 + 2, 1)
    assert run.settings["loss.beta"] == 0.1
    assert run.settings["data.train.0.path"] == "pairs.jsonl"
    assert run.settings["optim.betas"] == [0.9, 0.999]


def test_without_a_result_the_last_evaluation_counts(tmp_path: Path) -> None:
    lines = [{"step": 0, HELD_OUT: 0.9}, {"step": 5, HELD_OUT: 0.8}]
    (run,) = gather([write_run(tmp_path / "a", lines=lines)]).runs
    assert run.metrics == {HELD_OUT: 0.8}


def test_what_was_measured_before_the_first_step_is_no_result_of_a_run_that_failed(tmp_path: Path) -> None:
    ended = {"exit_code": 1, "message": "no memory"}
    lines = [{"step": 0, HELD_OUT: 0.9, "samples/length": 3.0}]
    assert gather([write_run(tmp_path / "a", lines=lines, ended=ended)]).runs[0].metrics == {}
    done = write_run(tmp_path / "b", lines=lines, metrics={HELD_OUT: 0.9})
    assert gather([done]).runs[0].metrics == {HELD_OUT: 0.9, "samples/length": 3.0}


def test_where_a_setting_of_the_loss_differs_a_note_says_that_losses_do_not_compare(tmp_path: Path) -> None:
    for lam in (0.1, 1.0):
        write_run(tmp_path / str(lam), ("loss", {"name": "orpo", "lam": lam}))
    (note,) = gather([tmp_path]).notes
    assert note == "loss and rewards/margin are not comparable between these runs: loss.lam differs"


@pytest.mark.parametrize(
    ("ended", "state", "error"),
    [
        ({"exit_code": 75, "message": "stopped by a signal after step 3\n  go on"}, "preempted", "stopped by a signal"),
        ({"exit_code": 143, "message": "stopped by SIGTERM"}, "preempted", "stopped by SIGTERM"),
        ({"exit_code": 1, "message": "the disk is full\n  free some space"}, "failed", "the disk is full"),
        (None, "lost", "it ended without a word"),
    ],
)
def test_how_a_run_ended_is_its_state(tmp_path: Path, ended: dict[str, object] | None, state: str, error: str) -> None:
    (run,) = gather([write_run(tmp_path / "a", ended=ended)]).runs
    assert run.state == state
    assert run.error.startswith(error)
    assert "\n" not in run.error
    assert run.seconds is None


def test_a_run_whose_lock_is_held_still_goes_on_and_its_half_line_is_no_fault(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", lines=[step(1, 0.7)], ended={"exit_code": 1, "message": "of an earlier start"})
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    lock = {"host": os.uname().nodename, "owners": [process_of(os.getpid())]}
    (folder / "lock.json").write_text(json.dumps(lock))
    found = gather([folder])
    assert (found.runs[0].state, found.runs[0].error, found.runs[0].broken) == ("running", "", 0)
    (folder / "lock.json").unlink()
    found = gather([folder])
    assert (found.runs[0].state, found.runs[0].broken) == ("failed", 1)
    assert any("1 lines of metrics.jsonl could not be read" in note for note in found.notes)


def test_broken_lines_and_values_that_are_not_finite_are_counted_and_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", lines=[step(1, 0.7), step(2, float("nan")), step(3, float("inf")), step(4, 0.5)])
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('[1]\n"text"\n{"step": "five"}\n{"loss": 1}\n\n{"step": 6, "loss": 1e999}\n')
    found = gather([folder])
    (run,) = found.runs
    assert run.curves["loss"] == [(1, 0.7), (4, 0.5)]
    assert (run.broken, run.nonfinite) == (4, 3)
    assert any("3 values are NaN or infinite" in note for note in found.notes)


def test_lines_end_at_a_line_feed_and_nowhere_else(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    rows = [{"id": "x:1", "before": "one\u2028two", "after": "three\x85four"}]
    (folder / "samples.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    assert list(gather([folder]).runs[0].samples) == rows


def test_what_varies_is_what_decides_numbers_and_differs(tmp_path: Path) -> None:
    for name, rate, seed in (("a", 1e-3, 1), ("b", 1e-3, 2), ("c", 2e-3, 1)):
        changes = [("optim.lr", rate), ("train.seed", seed), ("dir", name), ("launch.device", name), ("name", name)]
        write_run(tmp_path / name, *changes)
    found = gather([tmp_path])
    assert found.varied == ["optim.lr", "train.seed"]
    assert [run.label for run in found.runs] == ["lr=0.001 seed=1", "lr=0.001 seed=2", "lr=0.002 seed=1"]
    assert found.runs[2].varied == {"optim.lr": 2e-3, "train.seed": 1}


def test_settings_that_only_another_method_has_do_not_vary(tmp_path: Path) -> None:
    write_run(tmp_path / "a", ("loss", {"name": "dpo", "beta": 0.1}))
    write_run(tmp_path / "b", ("loss", {"name": "orpo", "lam": 0.1}))
    write_run(tmp_path / "c", ("loss", {"name": "orpo", "lam": 0.2}))
    found = gather([tmp_path])
    assert found.varied == ["loss.name", "loss.lam"]
    assert [run.label for run in found.runs] == ["loss=dpo", "loss=orpo lam=0.1", "loss=orpo lam=0.2"]


def test_adapters_beside_none_vary(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", ("model.lora", {"r": 8}))
    assert set(gather([tmp_path]).varied) == {"model.lora", "model.lora.r"}


def test_runs_of_the_same_settings_are_called_by_their_folders(tmp_path: Path) -> None:
    write_run(tmp_path / "one" / "run")
    write_run(tmp_path / "two" / "run")
    runs = gather([tmp_path]).runs
    assert [run.label for run in runs] == ["one/run", "two/run"]
    assert [run.name for run in runs] == ["one/run", "two/run"]


def test_a_run_is_named_by_as_much_of_its_folder_as_tells_it_from_the_others(tmp_path: Path) -> None:
    for rate, name in ((1e-3, "quick"), (2e-3, "a/long"), (3e-3, "b/long")):
        write_run(tmp_path / "runs" / name, ("optim.lr", rate))
    assert {run.label: run.name for run in gather([tmp_path / "runs"]).runs} == {
        "lr=0.001": "quick",
        "lr=0.002": "a/long",
        "lr=0.003": "b/long",
    }


def test_of_a_source_that_others_lack_only_the_path_is_shown(tmp_path: Path) -> None:
    one, two = ({"path": f"{name}.jsonl", "format": "auto", "split": "train", "weight": 1.0} for name in ("a", "b"))
    write_run(tmp_path / "1", ("data.train", [one]))
    write_run(tmp_path / "2", ("data.train", [one, two]), ("data.eval", {"mine": two}))
    write_run(tmp_path / "3", ("data.train", [one | {"weight": 2.0}]))
    assert gather([tmp_path]).varied == ["data.train.0.weight", "data.train.1.path", "data.eval.mine.path"]


def test_paths_are_called_by_what_they_do_not_share(tmp_path: Path) -> None:
    for name in "ab":
        write_run(tmp_path / name, ("data.train", [{"path": f"/data/of/us/{name}/pairs.jsonl"}]))
    assert [run.label for run in gather([tmp_path]).runs] == ["path=a/pairs.jsonl", "path=b/pairs.jsonl"]


def test_paths_that_share_no_folder_are_called_by_their_ends(tmp_path: Path) -> None:
    for name, path in (("a", "demo://manners/train.jsonl"), ("b", "/tmp/x/mine.jsonl")):
        write_run(tmp_path / name, ("data.train", [{"path": path}]))
    assert [run.label for run in gather([tmp_path]).runs] == ["path=train.jsonl", "path=mine.jsonl"]


def sweep_of_five(home: Path) -> Path:
    """Done, failed, running on a cluster, its folder gone, and queued."""
    write_run(home / "runs" / "a", ("optim.lr", 1e-3), metrics={HELD_OUT: 0.5})
    write_run(home / "runs" / "b", ("optim.lr", 2e-3), ended={"exit_code": 1, "message": "no memory"})
    jobs = [
        Job(number, [f"optim.lr={rate}"], [f"optim.lr={rate}"], name, f"runs/{name}", state=state, exit_code=code)
        for number, name, rate, state, code in (
            (1, "a", "0.001", "running", None),
            (2, "b", "0.002", "running", 1),
            (3, "c", "0.003", "running", None),
            (4, "d", "0.004", "done", 0),
            (5, "e", "0.005", "queued", None),
        )
    ]
    jobs[2].handle = {"slurm_job": "2_3"}
    jobs[3].had_folder = True
    return write_sweep(home, *jobs, metric=HELD_OUT, direction="minimize")


def test_every_job_of_a_sweep_is_a_run_whatever_became_of_it(tmp_path: Path) -> None:
    found = gather([sweep_of_five(tmp_path)])
    assert [(run.label, run.state) for run in found.runs] == [
        ("lr=0.001", "done"),
        ("lr=0.002", "failed"),
        ("lr=0.003", "running"),
        ("lr=0.004", "lost"),
        ("lr=0.005", "queued"),
    ]
    assert found.runs[1].error == "no memory"
    assert {run.method for run in found.runs} == {"dpo"}
    assert (found.metric, found.direction, found.varied) == (HELD_OUT, "minimize", ["optim.lr"])
    assert found.runs[4].folder is None
    assert [run.name for run in found.runs] == ["a", "b", "job 3", "job 4", "job 5"]


def test_a_sweep_that_was_copied_elsewhere_is_read_there(tmp_path: Path) -> None:
    sweep_of_five(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    found = gather([tmp_path / "there" / "sweeps" / "tried"])
    assert [run.state for run in found.runs][:2] == ["done", "failed"]
    assert found.runs[0].folder == tmp_path / "there" / "runs" / "a"


def test_a_sweep_and_its_runs_folder_are_each_run_once(tmp_path: Path) -> None:
    sweep_of_five(tmp_path)
    write_run(tmp_path / "runs" / "z", ("optim.lr", 9e-3))
    assert [run.label for run in gather([tmp_path]).runs] == [
        *(f"lr=0.00{place}" for place in (1, 2, 3, 4, 5)),
        "lr=0.009",
    ]


def test_an_evaluation_belongs_to_the_run_that_it_measured(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "runs" / "a", ("train.seed", 1)), write_run(tmp_path / "runs" / "b", ("train.seed", 2))
    write_evaluation(a / "eval" / "preferences-1", "preferences", {"heldout/rewards/accuracy": 0.7})
    write_evaluation(tmp_path / "eval" / "quality-1", "quality", {"length": 12.0}, {"model": str(b / "model")})
    write_evaluation(tmp_path / "eval" / "quality-2", "quality", {"length": 9.0}, {"model": "somebody/model"})
    found = gather([tmp_path])
    runs = {run.label: run for run in found.runs}
    assert runs["seed=1"].metrics == {"preferences/heldout/rewards/accuracy": 0.7}
    assert runs["seed=2"].metrics == {"quality/length": 12.0}
    other = runs["somebody/model"]
    assert (other.method, other.state, other.metrics) == ("", "done", {"quality/length": 9.0})
    evaluation = other.evaluations[0]
    assert (evaluation.figures["length"].low, evaluation.left_out, evaluation.notes) == (
        8.0,
        {"too long": 2},
        ("a note",),
    )


def test_two_evaluations_of_one_name_go_by_their_folders(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    for number in (1, 2):
        write_evaluation(run / "eval" / f"quality-{number}", "quality", {"length": float(number)})
    assert gather([run]).runs[0].metrics == {"quality-1/length": 1.0, "quality-2/length": 2.0}


def test_what_is_damaged_costs_a_note_and_not_the_report(tmp_path: Path) -> None:
    write_run(tmp_path / "a", metrics={HELD_OUT: 0.5})
    damaged = write_run(tmp_path / "b", metrics={HELD_OUT: 0.5})
    for name in ("manifest.json", "result.json"):
        (damaged / name).write_text('{"cut in')
    (damaged / "run.yaml").write_text("a: [")
    write_evaluation(damaged / "eval" / "x-1", "x", {})
    (damaged / "eval" / "x-1" / "figures.json").write_text('{"name": "x"}')
    found = gather([tmp_path])
    assert [run.state for run in found.runs] == ["done", "failed"]
    assert "result.json cannot be read" in found.runs[1].error
    for said in ("manifest.json cannot be read", "run.yaml cannot be read", "figures.json does not hold"):
        assert any(said in note for note in found.notes), said


def test_a_path_without_runs_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, said in (("nowhere", "no such folder"), ("file", "is a file"), ("empty", "holds no run")):
        with pytest.raises(UserError, match=said):
            gather([tmp_path / name])


def test_a_sweep_without_jobs_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a sweep without jobs"):
        gather([write_sweep(tmp_path)])


def test_a_curve_is_a_sequence_of_points() -> None:
    curve = Curve([(1, 0.5), (2, 0.25)])
    assert (len(curve), curve[0], curve[-1], curve[1:]) == (2, (1, 0.5), (2, 0.25), [(2, 0.25)])
    assert dict(curve) == {1: 0.5, 2: 0.25}


def test_five_hundred_runs_of_two_hundred_lines_are_read_in_seconds(tmp_path: Path) -> None:
    metrics = {f"metric__{place}": 0.5 + place for place in range(20)}
    text = "".join(json.dumps(step(number, 1 / number, **metrics)) + "\n" for number in range(1, 201))
    for place in range(500):
        folder = write_run(tmp_path / f"run-{place:03d}", ("optim.lr", place / 1000), metrics={HELD_OUT: 0.5})
        (folder / "metrics.jsonl").write_text(text)
    started = time.perf_counter()
    found = gather([tmp_path])
    seconds = time.perf_counter() - started
    print(f"500 runs of 200 lines gathered in {seconds:.1f} s")
    assert len(found.runs) == 500
    assert len(found.runs[7].curves["metric/7"]) == 200
    assert seconds < 30
