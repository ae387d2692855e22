"""Reference columns: the same for any cut, scored once for all runs of a sweep, verified and never trusted blindly."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from ragged import RaggedSet, make_engine, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import ROOT, environment, make_model, make_pairs, overrides, prefopt, start

from prefopt.errors import RunError
from prefopt.train.column_cache import cached_column, column_key, damage
from prefopt.train.column_check import ROWS_CHECKED, rows_to_check
from prefopt.train.engine import Engine
from prefopt.train.partial_column import part_of, score_in_parts
from prefopt.train.rows import Rows
from prefopt.train.scoring import Measure, score, sequence_logps, token_logps

NUM_ROWS = 40 + 8  # rows of `make_pairs`, of which `overrides` holds 8 out


@pytest.fixture
def engine() -> Engine:
    made = make_engine(settings("one"))
    made.module.eval()
    return made


@pytest.fixture
def measure(engine: Engine) -> Measure:
    return sequence_logps(Rows(RaggedSet(frozenset()), frozenset(), engine.policy.shares_prompts))  # type: ignore[arg-type]


def attach(engine: Engine, measure: Measure, file: Path) -> tuple[np.ndarray, int, str]:
    said: list[str] = []
    column, count = cached_column(engine, measure, file, "the reference", lambda: nullcontext(engine), said.append)
    return column, count, "\n".join(said)


def test_a_column_does_not_depend_on_how_it_was_cut(engine: Engine, measure: Measure) -> None:
    columns = []
    for budget in (10**6, 100, 1):
        engine.run.train.tokens_per_micro_batch = budget
        columns.append(score(engine, engine, measure))
    for column in columns[1:]:
        np.testing.assert_allclose(column, columns[0], rtol=1e-6)


def test_numbers_per_token_add_up_and_some_rows_are_those_of_all(engine: Engine, measure: Measure) -> None:
    by_token = token_logps(measure.rows)
    whole = score(engine, engine, by_token)
    np.testing.assert_allclose(np.add.reduceat(whole, by_token.offsets[:-1]), score(engine, engine, measure), rtol=1e-6)
    places = np.array([2, 3, 11])
    expected = np.concatenate([whole[by_token.row_offsets[p] : by_token.row_offsets[p + 1]] for p in places])
    np.testing.assert_allclose(score(engine, engine, by_token, places), expected, rtol=1e-4, atol=1e-6)


def test_a_kept_column_is_found_and_verified(engine: Engine, measure: Measure, tmp_path: Path) -> None:
    file = tmp_path / "reference" / "key.npy"
    first, count, said = attach(engine, measure, file)
    assert count == len(measure.rows) == 13
    assert "scoring the reference on 13 rows" in said
    second, count, said = attach(engine, measure, file)
    assert count == 0
    assert "scoring" not in said
    assert "from the cache; 8 of them give the same numbers again" in said
    assert np.array_equal(first, second)


def test_rows_to_check_are_the_same_for_every_run_and_of_all_lengths(measure: Measure) -> None:
    places = rows_to_check(measure, "key")
    assert places.tolist() == rows_to_check(measure, "key").tolist() == sorted(set(places.tolist()))
    assert len(places) == ROWS_CHECKED
    assert places.tolist() != rows_to_check(measure, "another").tolist()
    by_length = np.argsort(measure.rows.costs, kind="stable")
    rank = {int(place): number for number, place in enumerate(by_length)}
    assert min(rank[p] for p in places) < 2  # one of the two shortest and the longest of thirteen
    assert max(rank[p] for p in places) == 12


def test_other_numbers_than_the_model_gives_are_refused_in_one_sentence(
    engine: Engine, measure: Measure, tmp_path: Path
) -> None:
    file = tmp_path / "key.npy"
    column, *_ = attach(engine, measure, file)
    np.save(file, column + 1.0)
    with pytest.raises(RunError) as caught:
        attach(engine, measure, file)
    assert str(file) in str(caught.value)
    assert "1 apart" in str(caught.value)
    assert "remove it" in caught.value.hint


@pytest.mark.parametrize("how", ["torn", "foreign", "short", "float32", "nan", "archive"])
def test_a_damaged_column_is_scored_anew_and_said(engine: Engine, measure: Measure, tmp_path: Path, how: str) -> None:
    file = tmp_path / "key.npy"
    column, *_ = attach(engine, measure, file)
    whole = file.read_bytes()
    if how == "torn":
        file.write_bytes(whole[:-40])
    elif how == "foreign":
        file.write_bytes(b"something else")
    elif how == "archive":
        np.savez(file.with_suffix(".npz"), column)
        file.with_suffix(".npz").replace(file)
    else:
        bad = {"short": column[:-1], "float32": column.astype(np.float32), "nan": np.where(column < 0, np.nan, 0.0)}
        np.save(file, bad[how])
    again, count, said = attach(engine, measure, file)
    assert count == 13
    assert "it is scored anew" in said
    assert np.array_equal(column, again)
    assert file.read_bytes() == whole


def test_numbers_that_are_not_finite_are_never_kept(engine: Engine, measure: Measure, tmp_path: Path) -> None:
    file = tmp_path / "key.npy"
    broken = Measure(measure.rows, lambda r: r.logps * float("nan"), measure.offsets, measure.tokens)
    attach(engine, broken, file)
    assert damage(file, 34) == ""


@pytest.mark.parametrize("of", [sequence_logps, token_logps])
@pytest.mark.parametrize("torn", [0, 5], ids=["whole", "torn"])
def test_scoring_goes_on_where_it_was_killed(engine: Engine, measure: Measure, tmp_path: Path, of, torn: int) -> None:
    measure, file, rows = of(measure.rows), tmp_path / "key.npy", len(measure.rows)
    straight, done = score_in_parts(engine, engine, measure, tmp_path / "straight.npy", rows_at_once=4)
    assert (len(straight), done) == (measure.offsets[-1], 0)
    calls = []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return engine(*arguments)

    engine.run.train.tokens_per_micro_batch = engine.tokens_per_micro_batch = 10**6
    with pytest.raises(KeyboardInterrupt):
        score_in_parts(engine, dies, measure, file, rows_at_once=2)
    part = part_of(file)
    assert part.stat().st_size == 8 * measure.row_offsets[8]
    with open(part, "ab") as out:
        out.write(b"x" * torn)
    column, done = score_in_parts(engine, engine, measure, file, rows_at_once=2)
    assert done == 8
    np.testing.assert_allclose(column, straight, rtol=1e-6)
    assert part.stat().st_size == 8 * len(column)
    again, count, said = attach(engine, measure, file)
    assert count == 0
    assert f"{rows} of them were scored by an earlier start" in said
    assert np.array_equal(again, column)
    assert not part.exists()

    part.write_bytes((column + 5.0)[: measure.row_offsets[4]].tobytes())
    file.unlink()
    with pytest.raises(RunError, match=r"\.key\.npy\.part: .* scores .* and not"):
        attach(engine, measure, file)


def test_the_key_names_everything_that_decides_the_numbers(engine: Engine, measure: Measure) -> None:
    run, rows = settings("one"), measure.rows
    usual = column_key(run, rows, "packed", "weights")
    run.train.tokens_per_micro_batch, run.train.seed, run.optim.lr = 1, 5, 3.0
    assert column_key(run, rows, "packed", "weights") == usual
    others = {column_key(run, rows, "padded", "weights"), column_key(run, rows, "packed", "others")}
    others.add(column_key(run, rows, "packed", "weights", "tokens"))
    run.model.dtype = "bfloat16"
    others.add(column_key(run, rows, "packed", "weights"))
    run.model.dtype, run.train.autocast = "float32", "bf16"
    others.add(column_key(run, rows, "packed", "weights"))
    assert len(others | {usual}) == 6


HOLDS_THE_LOCK = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])  # kept: a lock that nobody refers to is given back
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_a_lock_of_a_killed_process_holds_nobody_up(engine: Engine, measure: Measure, tmp_path: Path) -> None:
    file = tmp_path / "key.npy"
    command = [sys.executable, "-c", HOLDS_THE_LOCK, str(file.with_suffix(".lock"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    _, count, said = attach(engine, measure, file)
    assert count == 13
    assert "waiting" not in said


def scored(run_dir: Path) -> int:
    return json.loads((run_dir / "result.json").read_text())["reference_rows_scored"]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("reference")
    return make_model(folder / "model"), make_pairs(folder / "pairs.jsonl", count=NUM_ROWS - 8)


@pytest.mark.slow
def test_the_runs_of_a_sweep_score_once(material: tuple[Path, Path], tmp_path: Path) -> None:
    model, pairs = material
    words = [*overrides(model, pairs, tmp_path / "x", "train.max_steps=1", "loss=dpo", "train.eval_every=never")]
    words = [word for word in words if not word.startswith("dir=")]
    betas = "loss.beta=0.05,0.1,0.5"
    environ = {**environment(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "prefopt.cli", "train", "-m", *words, betas]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    counts = sorted(scored(folder.parent) for folder in tmp_path.glob("runs/*/result.json"))
    assert counts == [0, 0, 40]
    assert len(re.findall(r"scoring the reference", done.stdout)) == 2  # train and held out, in one run


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_runs_that_start_at_once_score_once_between_them(
    material: tuple[Path, Path], tmp_path: Path, num_processes: int
) -> None:
    model, pairs = material
    more = ["loss=dpo", "train.max_steps=1", f"launch.num_processes={num_processes}", "train.eval_every=never"]
    dirs = [tmp_path / "a", tmp_path / "b"]
    processes = [start(["train", *overrides(model, pairs, d, *more)], tmp_path / "cache") for d in dirs]
    outputs = []
    for process in processes:
        try:
            out, err = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert process.returncode == 0, err
        outputs.append(out)
    assert sum(map(scored, dirs)) == 40
    assert sum(out.count("scoring the reference on 32 rows of train\n") for out in outputs) == 1


@pytest.mark.slow
def test_a_run_waits_for_the_one_that_scores_and_says_so(material: tuple[Path, Path], tmp_path: Path) -> None:
    model, pairs = material
    words = ["train", *overrides(model, pairs, tmp_path / "a", "loss=dpo", "train.max_steps=1")]
    cache = tmp_path / "cache"
    assert prefopt(words, cache).returncode == 0
    (train,) = [f for f in (cache / "reference").glob("*.npy") if np.load(f).shape == (64,)]
    column = train.read_bytes()
    train.unlink()
    lock = train.with_suffix(".lock")
    command = [sys.executable, "-c", HOLDS_THE_LOCK, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            words[-3:] = [f"dir={tmp_path / 'b'}", *words[-2:]]
            process = start(words, cache)
            assert process.stdout is not None
            seen: list[str] = []
            while not seen or "waiting for another run" not in seen[-1]:
                line = process.stdout.readline()
                assert line, seen
                seen.append(line)
            assert str(lock) in seen[-1]
            time.sleep(0.2)
            assert not train.exists()
            train.write_bytes(column)  # as the other run would leave it
        finally:
            holder.kill()
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "scoring" not in out
    assert scored(tmp_path / "b") == 0
