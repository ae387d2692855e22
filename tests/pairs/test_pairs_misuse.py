"""What is wrong before `prefopt pairs` begins, or goes wrong on the way, is one sentence; losses are counted."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pairs_bed import COMMON, Made, assert_one_sentence, make_base, wait_until

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))
from disk_bed import fill, small_disk

pytestmark = pytest.mark.slow

QUESTIONS = (
    "How does a lion sound?",
    "What colour is snow?",
    "Which word is opposite to wet?",
    "How does a cat sound?",
)


@pytest.fixture(scope="module")
def base() -> str:
    return make_base()


def of_questions(folder: Path, *more: str, questions: tuple[str, ...] = QUESTIONS) -> Made:
    """A command on a few prompts of its own."""
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps({"prompt": words}) + "\n" for words in questions))
    instead = ("prompts=", "score") if any(word.startswith("score=") for word in more) else ("prompts=",)
    words = [word for word in COMMON if not word.startswith(instead)]
    return Made(folder / "out", tuple(more), (*words, f"prompts={file}", "chunk_size=2"))


def test_a_folder_of_other_settings_is_left_as_it_is(base: str, tmp_path: Path) -> None:
    made = of_questions(tmp_path)
    assert made.run().returncode == 0
    before = made.results()
    refused = made.run("generate.n=4", "seed=1")
    assert_one_sentence(refused, "holds other pairs; it is left as it is", "settings.seed: 42 -> 1", code=2)
    assert "settings.generate.n: 3 -> 4\n" in refused.stderr
    assert "temperature" not in refused.stderr
    assert f"generate=given prompts={made.out}/candidates.jsonl" in refused.stderr
    file = tmp_path / "questions.jsonl"
    file.write_text(file.read_text() + '{"prompt": "What colour is coal?"}\n')
    assert made.run().returncode == 0  # it is done: nothing of the prompts is read any more
    assert made.results() == before


@pytest.mark.long
def test_other_prompts_in_the_same_file_are_refused_on_the_way(base: str, tmp_path: Path) -> None:
    made = of_questions(tmp_path)
    command = made.start()
    assert wait_until(command, lambda: any((made.out / "generated").glob("*.jsonl")))
    command.terminate()
    assert command.wait(60) == 75
    of_questions(tmp_path, questions=(*QUESTIONS, "What colour is coal?"))
    assert_one_sentence(made.run(), f"{made.out} was begun with other prompts", "restore the file", code=2)
    of_questions(tmp_path)
    assert made.run().returncode == 0


def test_other_weights_at_the_same_path_are_refused(base: str, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "model")
    made = of_questions(tmp_path, f"policy={tmp_path}/model")
    assert made.run().returncode == 0
    weights = tmp_path / "model" / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-5] ^= 1
    weights.write_bytes(changed)
    assert_one_sentence(made.run(), "holds other pairs", f"models.{tmp_path}/model: ", code=2)


def a_file(out: Path) -> None:
    out.write_text("mine")


def a_photo(out: Path) -> None:
    out.mkdir()
    (out / "photo.jpg").touch()


def a_run(out: Path) -> None:
    out.mkdir()
    (out / "manifest.json").write_text('{"identity": "x", "versions": {}}')


def a_damaged_manifest(out: Path) -> None:
    out.mkdir()
    (out / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (a_file, "is a file, not a folder\n  another place: out=FOLDER"),
        (a_photo, "is no folder of prefopt pairs: it holds photo.jpg\n  another place: out=FOLDER"),
        (a_run, "is no folder of prefopt pairs: its manifest.json is another's\n  another place: out=FOLDER"),
        (a_damaged_manifest, "restore it, or take another folder by out=FOLDER"),
    ],
)
def test_a_place_that_holds_something_else_is_left_alone(
    place: Callable[[Path], None], said: str, base: str, tmp_path: Path
) -> None:
    made = of_questions(tmp_path)
    place(made.out)
    before = sorted(made.out.rglob("*"))
    assert_one_sentence(made.run(), said, code=2)
    assert sorted(made.out.rglob("*")) == before


def test_a_place_that_cannot_be_is_a_sentence_that_names_the_key(base: str, tmp_path: Path) -> None:
    made = of_questions(tmp_path, f"out={tmp_path}/questions.jsonl/out")
    assert_one_sentence(made.run(), "cannot be written", "take another place by out=FOLDER", code=1)


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["policy=./absent"], "./absent", 2),
        (["prompts=./absent.jsonl"], "absent.jsonl: no such file", 2),
        (["shard=4/3"], "shard=4/3: expected K/N with K from 0 to N - 1", 2),
        (["device=cuda"], "device=cuda: there is no GPU here", 2),
        (["score.function=json:absent"], "function: json has no function 'absent'", 2),
        (["generate.stop=['<nope>']"], "generate.stop: '<nope>' is no token of", 2),
        (["generate.max_new_tokens=256"], "has 256 positions, for prompt and answer", 2),
        (["score=reward", "reward=demo://manners/base"], "reward: demo://manners/base has no trained scalar head", 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_had_is_one_sentence(words: list[str], said: str, code: int, base: str, tmp_path: Path) -> None:
    assert_one_sentence(of_questions(tmp_path, *words).run(), said, code=code)


def test_prompts_over_the_limit_are_counted(base: str, tmp_path: Path) -> None:
    made = of_questions(tmp_path, "max_prompt_tokens=16", questions=(*QUESTIONS, "How does a lion sound? " * 9))
    done = made.run()
    assert done.returncode == 0, done.stderr
    assert "1 prompt too long" in done.stdout
    assert made.stats()["prompts"]["with_candidates"] == 4
    (lost,) = [row for row in made.rows("left_out.jsonl") if row["reason"] == "prompt too long"]
    assert lost["id"] == "questions.jsonl:5"
    assert lost["text"] is None
    assert "of which 16 may be" in lost["detail"]


@pytest.mark.long
def test_answers_that_never_end_are_all_counted_and_may_be_kept(base: str, tmp_path: Path) -> None:
    made = of_questions(tmp_path, "generate.max_new_tokens=2")
    refused = made.run()
    assert_one_sentence(refused, "not one row could be made; left out: ", "12 answer not finished", code=1)
    assert "4 no candidate" in refused.stderr
    assert "raise generate.max_new_tokens, or keep what it cut: generate.unfinished=keep" in refused.stderr
    assert f"{made.out}/left_out.jsonl has each with its reason" in refused.stderr
    assert not (made.out / "stats.json").exists()
    again = made.run("generate.unfinished=keep")  # there are answers, though not one of them made a row
    assert_one_sentence(again, "holds other pairs", "out=FOLDER", f"rm -r {made.out}", code=2)
    kept = Made(tmp_path / "kept", (*made.more, "generate.unfinished=keep", "select=keep_all"), made.base)
    done = kept.run()
    assert done.returncode == 0
    said = "12 of 12 candidates were cut at generate.max_new_tokens and are closed as if whole"
    assert said in done.stdout
    assert said in (kept.out / "card.md").read_text(encoding="utf-8")
    assert len([c for row in kept.rows("candidates.jsonl") for c in row["candidates"]]) == 12


@pytest.mark.long
def test_a_damaged_chunk_is_named_and_made_again_when_it_is_deleted(base: str, tmp_path: Path) -> None:
    made = of_questions(tmp_path)
    assert made.run().returncode == 0
    want = made.results()
    (made.out / "stats.json").unlink()
    chunk = made.out / "generated" / "00001.jsonl"
    chunk.write_bytes(chunk.read_bytes()[:-20])
    assert_one_sentence(
        made.run(), f"{chunk}:2 is damaged", "delete that file: the same command makes it again", code=1
    )
    chunk.unlink()
    assert made.run().returncode == 0
    assert made.results() == want


@pytest.mark.long
def test_a_full_disk_is_one_sentence_and_then_the_same_command_goes_on(base: str, tmp_path: Path) -> None:
    undisturbed = Made(tmp_path / "undisturbed")
    assert undisturbed.run().returncode == 0
    with small_disk(tmp_path / "disk", 4096) as disk:
        made = Made(disk / "out")
        command = made.start()
        assert wait_until(command, (made.out / "notes").exists)
        ballast = fill(disk)
        _, said = command.communicate(timeout=120)
        assert command.returncode == 1, said
        assert "Traceback" not in said
        assert "No space left on device" in said
        assert "free some space" in said
        again = made.run()
        assert_one_sentence(again, "No space left on device", "free some space", code=1)
        ballast.unlink()
        assert made.run().returncode == 0
        assert made.results() == undisturbed.results()
