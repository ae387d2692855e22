"""No answer is paid for twice: not by a killed judge, not by a rerun, not by several at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from server_bed import FakeServer, Reply, Seen, example, place, scripted, serving

from prefopt.errors import RunError
from prefopt.pairs.notes import Notes
from prefopt.pairs.registry import make_stage
from prefopt.pairs.stages import Judged
from prefopt.records import Example

ROOT = Path(__file__).resolve().parents[2]


def judged(fake: FakeServer, notes: Path, *examples: Example, said: list[str] | None = None, **settings: Any) -> Any:
    stage = make_stage("score", {"name": "judge", "url": fake.url, "model": "judge-7b", **settings})
    found: list[Judged] = stage.open(place(notes, said))(examples)
    return found[0] if len(found) == 1 else found


WORK = """
import sys
sys.path.insert(0, "tests/pairs")
from pathlib import Path
from server_bed import place, example
from prefopt.pairs.registry import make_stage
stage = make_stage("score", {"name": "judge", "url": sys.argv[1], "model": "m", "concurrency": int(sys.argv[3])})
judge = stage.open(place(Path(sys.argv[2])))
print([j.scores for j in judge([example(f"question {i}", "a", "b") for i in range(6)])])
"""


def work(url: str, notes: Path, concurrency: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORK, url, str(notes), str(concurrency)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
def test_a_killed_judge_asks_nothing_twice_and_a_rerun_nothing_at_all(torn: bool, tmp_path: Path) -> None:
    hangs = threading.Event()
    release = threading.Event()

    def script(number: int, seen: Seen) -> str:
        if number == 7:
            hangs.set()
            release.wait(60)
        return "Score: 4"

    with serving(script) as fake:
        killed = work(fake.url, tmp_path)
        assert hangs.wait(60)  # one at a time: the first 7 have been answered
        killed.send_signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
        release.set()
        if torn:
            (file,) = tmp_path.rglob("answers-*.jsonl")
            with open(file, "ab") as lines:
                lines.write(b'{"key": "cut off by a po')
        out, _ = work(fake.url, tmp_path).communicate(timeout=60)
        assert out == f"{[(4.0, 4.0)] * 6}\n"
        questions = fake.questions
        assert len(questions) == 13  # 12, and once more the one that nobody had answered
        assert questions[7] == questions[8]
        assert len(set(questions)) == 12
    # The server has gone, and nobody misses it.
    again, _ = work(fake.url, tmp_path, concurrency=4).communicate(timeout=60)
    assert again == out


def test_ctrl_c_does_not_wait_for_a_judge_that_thinks(tmp_path: Path) -> None:
    asked = threading.Event()

    def script(number: int, seen: Seen) -> Reply:
        asked.set()
        return Reply("Score: 4", hang=20)

    with serving(script) as fake:
        process = work(fake.url, tmp_path, concurrency=4)
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) != 0


def test_notes_that_cannot_be_written_end_the_run_and_keep_what_was_whole(tmp_path: Path) -> None:
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom prefopt.pairs.notes import Notes\n"
        "notes = Notes(Path(sys.argv[1]), print)\n"
        "notes.keep('a', 'x' * 100)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
        "notes.keep('b', 'x' * 100)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=env)
    assert "RunError" in done.stderr
    assert "answers cannot be kept or read there: File too large" in done.stderr
    again = Notes(tmp_path, print)
    assert (len(again), again.get("a"), again.get("b")) == (1, "x" * 100, None)
    with pytest.raises(RunError, match="answers cannot be kept"):
        Notes(next(tmp_path.iterdir()), print)


def test_processes_that_work_at_once_keep_their_answers_apart(tmp_path: Path) -> None:
    with serving(scripted(Reply("Score: 4", hang=0.02))) as fake:
        for process in [work(fake.url, tmp_path, concurrency=4) for _ in range(3)]:
            process.communicate(timeout=60)
        assert len(list(tmp_path.rglob("answers-*.jsonl"))) == 3
        asked = len(fake.seen)
        work(fake.url, tmp_path).communicate(timeout=60)
        assert len(fake.seen) == asked


def test_another_template_or_model_is_another_question(tmp_path: Path) -> None:
    with serving(scripted("Score: 4")) as fake:
        for settings in ({}, {"template": "curation"}, {"model": "other"}, {"temperature": 0.5}, {}):
            judged(fake, tmp_path, example("q", "a"), **settings)
        assert len(fake.seen) == 4


def test_a_line_of_the_notes_that_cannot_be_read_is_said_and_asked_again(tmp_path: Path) -> None:
    said: list[str] = []
    with serving(scripted("Score: 4")) as fake:
        judged(fake, tmp_path, example("q", "a", "b"))
        (file,) = tmp_path.rglob("answers-*.jsonl")
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"\x00\xff\n" + lines[1])
        judged(fake, tmp_path, example("q", "a", "b"), said=said)
        assert len(fake.seen) == 3
    assert said == [f"{file}: 1 lines cannot be read; what they held is asked again"]
