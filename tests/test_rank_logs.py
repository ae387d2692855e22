"""What ranks said last, and which of them took the others along."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prefopt import rank_logs
from prefopt.rank_logs import Death, cause, last_lines, log_file, tell, write_death

LOST = "RuntimeError: [gloo] Connection closed by peer [127.0.0.1]:1234"
KILLED, ENDED = -signal.SIGKILL, -signal.SIGTERM


def said(folder: Path, **lines: str) -> Path:
    """A run folder whose ranks wrote these lines."""
    rank_logs.clear(folder)
    for rank, text in lines.items():
        log_file(folder, int(rank[1:])).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("deaths", "rank"),
    [
        ({0: Death(1, 5), 1: Death(KILLED, 5)}, 1),  # killed; the other lost its peer
        ({0: Death(1, 5), 1: Death(3, 5)}, 1),  # left with a code; the other lost its peer
        ({0: Death(ENDED, 6), 1: Death(3, 5)}, 1),
        ({1: Death(3, 5), 0: Death(KILLED, 35)}, 1),  # the other hung in a collective until it was killed
        ({0: Death(1, 5), 1: Death(KILLED, 35)}, 0),  # rank 1 hung, which rank 0 noticed
        ({1: Death(-signal.SIGSEGV, 5), 0: Death(-signal.SIGABRT, 5)}, 1),
    ],
)
def test_the_rank_that_went_first_is_named(deaths: dict[int, Death], rank: int, tmp_path: Path) -> None:
    folder = said(tmp_path, r0=f"Traceback\n{LOST}\n", r1="ValueError: a\n")
    assert cause(folder, deaths) == rank


def test_the_sentence_has_the_last_line_and_the_file(tmp_path: Path) -> None:
    folder = said(tmp_path, r0=LOST, r1="Traceback:\n  File x\n\nValueError: no such layer\n\n")
    sentence, more = tell(folder, {0: Death(1, 5), 1: Death(1, 5)})
    assert sentence == "rank 1 ended with exit code 1: ValueError: no such layer"
    assert str(log_file(folder, 1)) in more
    assert "  File x" in more
    assert tell(said(tmp_path), {0: Death(KILLED)})[0].startswith("rank 0 was killed by SIGKILL")
    hung = tell(said(tmp_path, r0="Timed out waiting"), {0: Death(1, 5), 1: Death(KILLED, 35)})
    assert "rank 1 hung" in hung[1]


def test_what_a_rank_wrote_down_itself_stays(tmp_path: Path) -> None:
    (tmp_path / "exit.json").write_text('{"exit_code": 75, "message": "stopped"}')
    write_death(said(tmp_path), {0: Death(75)})
    assert json.loads((tmp_path / "exit.json").read_text())["exit_code"] == 75
    (tmp_path / "exit.json").unlink()
    write_death(said(tmp_path, r1="x"), {1: Death(KILLED)})
    assert json.loads((tmp_path / "exit.json").read_text())["rank"] == 1


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    said(tmp_path, r0="".join(f"line {number}\n" for number in range(100_000)))
    assert last_lines(tmp_path, 0) == [f"line {number}" for number in range(99_995, 100_000)]


def test_a_killed_ranks_last_words_are_kept_and_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rank_logs.clear(tmp_path)
    log_file(tmp_path, 9).write_text("of another start")
    rank_logs.clear(tmp_path)
    code = (
        "import os, sys\n"
        "from prefopt.rank_logs import capture\n"
        "capture()\n"
        "print('from Python', file=sys.stderr)\n"
        "os.write(2, b'from below')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    env = {**os.environ, rank_logs.VARIABLE: str(tmp_path), "RANK": "3"}
    with rank_logs.shown(tmp_path, range(2, 4)):
        assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == KILLED
    assert last_lines(tmp_path, 3) == ["from Python", "from below"]
    assert capfd.readouterr().err == "from Python\nfrom below"
    assert not log_file(tmp_path, 9).exists()


def test_what_a_rank_writes_is_shown_while_it_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rank_logs.clear(tmp_path)
    with rank_logs.shown(tmp_path, range(1)):
        log_file(tmp_path, 0).write_text("soon")
        seen, deadline = "", time.monotonic() + 10
        while seen != "soon":
            assert time.monotonic() < deadline
            time.sleep(0.02)
            seen += capfd.readouterr().err
