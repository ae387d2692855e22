"""`prefopt pairs` in real processes: by one or many, killed or stopped, the same command makes the same files."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from pairs_bed import (
    NUM_CHUNKS,
    NUM_PROMPTS,
    RESULTS,
    Made,
    make_base,
    tree,
    wait_until,
)
from pairs_campaign import campaign

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The folder of a command that nobody harmed."""
    make_base()
    made = Made(tmp_path_factory.mktemp("pairs") / "undisturbed")
    done = made.run()
    assert done.returncode == 0, done.stderr
    return made


def has_chunks(made: Made, count: int) -> bool:
    return len(list((made.out / "generated").glob("*.jsonl"))) >= count


def test_a_command_makes_rows_of_every_prompt_once_and_says_what_it_left_out(undisturbed: Made) -> None:
    assert undisturbed.complaints() == []
    numbers = undisturbed.stats()
    assert numbers["prompts"]["with_candidates"] == NUM_PROMPTS
    assert numbers["prompts"]["left_out"]["repeated prompt"] == 1500 - NUM_PROMPTS
    rows, candidates = undisturbed.rows(), undisturbed.rows("candidates.jsonl")
    assert len(rows) == numbers["rows"]["count"] == NUM_PROMPTS - numbers["prompts"]["left_out"]["all scores are equal"]
    assert len(undisturbed.rows("left_out.jsonl")) == sum(numbers["prompts"]["left_out"].values()) + sum(
        numbers["candidates"]["left_out"].values()
    )
    assert [row["id"] for row in candidates] == [row["id"] for row in undisturbed.rows("prompts.jsonl")]
    of = {row["id"]: row["candidates"] for row in candidates}
    for row in rows:
        scores = [candidate["score"] for candidate in of[row["provenance"]["id"]]]
        assert (row["score_chosen"], row["score_rejected"]) == (max(scores), min(scores))
        assert row["chosen"] == of[row["provenance"]["id"]][row["provenance"]["chosen"]]["text"]
    others = ["generated", "judged", "manifest.json", "notes", "pairs.yaml", "prompts.jsonl", "prompts_left_out.jsonl"]
    assert sorted(p.name for p in undisturbed.out.iterdir()) == sorted([*RESULTS, *others])


def test_a_folder_that_is_done_is_told_and_nothing_is_written(undisturbed: Made) -> None:
    before = {p: p.stat().st_mtime_ns for p in undisturbed.out.rglob("*")}
    again = undisturbed.run("num_processes=2", "tokens_per_batch=999")
    assert again.returncode == 0
    assert f"{undisturbed.out} is done already: " in again.stdout
    assert {p: p.stat().st_mtime_ns for p in undisturbed.out.rglob("*")} == before


@pytest.mark.parametrize(
    ("kills", "more"),
    [
        (6, ()),
        pytest.param(18, (), marks=pytest.mark.long),
        pytest.param(8, ("num_processes=2",), marks=pytest.mark.long),
    ],
    ids=["a few", "every moment twice", "two processes"],
)
def test_killed_at_any_instant_the_same_command_makes_the_same_files_and_no_chunk_twice(
    kills: int, more: tuple[str, ...], undisturbed: Made, tmp_path: Path
) -> None:
    found = campaign(kills, kills, tmp_path, undisturbed.results(), more)
    assert found.complaints == []
    assert found.kills.total() >= kills


@pytest.mark.long
def test_a_process_that_is_killed_alone_ends_the_command_with_a_sentence(undisturbed: Made, tmp_path: Path) -> None:
    made = Made(tmp_path / "out", ("num_processes=2",))
    command = made.start()
    assert wait_until(command, lambda: has_chunks(made, 1))
    workers = tree(command)
    workers[0].kill()
    _, said = command.communicate(timeout=60)
    assert command.returncode == 1
    assert "prefopt: a process was ended by SIGKILL (SIGKILL is often the system, out of memory)" in said
    assert "the same command goes on from what is there; tokens_per_batch=N holds less at a time" in said
    assert not any(worker.is_running() for worker in workers)
    assert made.run().returncode == 0
    assert made.results() == undisturbed.results()


@pytest.mark.parametrize("whom", ["the command", "a process of it"])
def test_a_signal_to_stop_gives_75_and_the_same_command_goes_on(whom: str, undisturbed: Made, tmp_path: Path) -> None:
    made = Made(tmp_path / "out")
    command = made.start()
    assert wait_until(command, lambda: has_chunks(made, 2))
    (tree(command)[0] if whom == "a process of it" else command).send_signal(signal.SIGTERM)
    _, said = command.communicate(timeout=60)
    assert command.returncode == 75, said
    assert "prefopt: stopped by SIGTERM\n  the same command goes on from what is there" in said
    assert "Traceback" not in said
    before = made.chunks()
    assert 2 <= len(before) < 2 * NUM_CHUNKS
    (made.out / "generated/.00001.jsonl.tmp-1").touch()  # what a kill in the middle of a write leaves
    assert made.run().returncode == 0
    assert before.items() <= made.chunks().items()
    assert not list(made.out.rglob(".*.tmp-*"))
    assert made.results() == undisturbed.results()


def test_a_signal_before_anything_has_begun_gives_75_too(tmp_path: Path) -> None:
    made = Made(tmp_path / "out")
    command = made.start()
    assert wait_until(command, made.out.exists)
    os.kill(command.pid, signal.SIGTERM)
    os.kill(command.pid, signal.SIGTERM)  # once by SLURM, once by a shell
    _, said = command.communicate(timeout=60)
    assert command.returncode == 75, said
    assert "Traceback" not in said


@pytest.mark.long
def test_shards_one_after_the_other_in_any_order_make_the_same_files(undisturbed: Made, tmp_path: Path) -> None:
    made = Made(tmp_path / "out")
    for shard, processes in (("2/3", 1), ("0/3", 3)):
        done = made.run(f"shard={shard}", f"num_processes={processes}")
        assert done.returncode == 0, done.stderr
        assert f"shard {shard} of {made.out} is done; the last one to end puts all together" in done.stdout
        assert not (made.out / "stats.json").exists()
    assert made.run("shard=1/3", "num_processes=2").returncode == 0
    assert made.results() == undisturbed.results()
    assert made.complaints() == []


@pytest.mark.long
def test_shards_at_the_same_time_make_the_same_files(undisturbed: Made, tmp_path: Path) -> None:
    made = Made(tmp_path / "out")
    shards = [made.start(f"shard={number}/3", f"num_processes={1 + number % 2}") for number in range(3)]
    for shard in shards:
        _, said = shard.communicate(timeout=300)
        assert shard.returncode == 0, said
    assert made.results() == undisturbed.results()
    assert made.complaints() == []


@pytest.mark.long
def test_tasks_of_a_job_array_do_a_part_each(
    undisturbed: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(tmp_path / "out", ("shard=slurm",))
    array = {"COUNT": "2", "MIN": "3", "MAX": "5", "STEP": "2"}
    for name, value in array.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    for task in ("5", "3"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        assert made.run().returncode == 0
        assert len(list((made.out / "generated").glob("*.jsonl"))) == (NUM_CHUNKS // 2 if task == "5" else NUM_CHUNKS)
    assert made.results() == undisturbed.results()


@pytest.mark.parametrize("word", ["chunk_size=20", "tokens_per_batch=300", "num_processes=3"])
@pytest.mark.long
def test_how_the_work_is_cut_changes_rounding_alone(word: str, undisturbed: Made, tmp_path: Path) -> None:
    """num_processes changes nothing at all; the others what stands side by side, and so at most the last bits of
    probabilities: an answer differs where its random number fell that close to a token's edge.
    """
    made = Made(tmp_path / "out", (word,))
    assert made.run().returncode == 0
    if word.startswith("num_processes"):
        assert made.results() == undisturbed.results()
    ours, theirs = made.rows("candidates.jsonl"), undisturbed.rows("candidates.jsonl")
    assert [row["id"] for row in ours] == [row["id"] for row in theirs]
    answers = [[candidate["text"] for row in rows for candidate in row["candidates"]] for rows in (ours, theirs)]
    assert sum(a == b for a, b in zip(*answers, strict=True)) >= 0.98 * len(answers[0])


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    made = Made(tmp_path / "out")
    told = made.run("--dry-run")
    assert told.returncode == 0
    assert f"{NUM_PROMPTS} prompts, {1500 - NUM_PROMPTS} left out; {NUM_CHUNKS} chunks of 8" in told.stdout
    assert f"{3 * NUM_PROMPTS} answers ({NUM_PROMPTS} prompts x 3)" in told.stdout
    assert told.stdout.endswith("nothing is written\n")
    assert not made.out.exists()


def test_the_settings_are_shown_with_their_origins(tmp_path: Path) -> None:
    shown = Made(tmp_path / "out").run("--show-config")
    assert shown.returncode == 0
    assert "command line" in shown.stdout
    assert "generate/sample.yaml" in shown.stdout
    assert not (tmp_path / "out").exists()
