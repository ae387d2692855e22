"""What is printed on real terminals, narrow, wide, dumb and without colour, in CI's logs and in pipes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tiny import ROOT, environment, make_model, make_pairs, metrics, overrides, prefopt, start

ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-9]|4[0-9]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")
DRAWN = ("CI", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""Variables of the one who runs the tests that would change what is drawn."""


LONG_STEPS = ["train.batch_size=32", "train.tokens_per_micro_batch=1"]
"""Every response a micro-batch of its own: the second Ctrl-C comes in the step of the first."""


def on_terminal(
    words: Sequence[str], cache: Path, width: int = 100, cwd: Path = ROOT, **said: str
) -> tuple[int, bytes]:
    """`prefopt WORDS...` on a pseudo-terminal of `width` columns: its exit code, and every byte that it wrote there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    env = {key: value for key, value in environment(cache).items() if key not in DRAWN}
    env |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **said}
    command = [sys.executable, "-m", "prefopt.cli", *words]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=cwd)
    os.close(theirs)
    written = b""
    while True:
        try:
            new = os.read(ours, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not new:
            break
        written += new
    os.close(ours)
    return process.wait(), written


def lines_of(written: bytes) -> list[str]:
    """What is left to read, escape sequences taken out."""
    return [line.rstrip() for line in ESCAPE.sub(b"", written).decode().replace("\r\n", "\n").split("\n")]


def test_a_narrow_terminal_shows_every_method_in_whole_words(tmp_path: Path) -> None:
    code, written = on_terminal(["losses"], tmp_path, width=40)
    text = "\n".join(lines_of(written))
    assert code == 0
    assert "…" not in text
    assert max(map(len, lines_of(written)[:-3])) <= 40
    assert "simpo\n  needs: pairs\n  reference: -\n  means over: pair\n" in text


def test_a_terminal_of_80_columns_shows_what_each_method_is_in_few_lines(tmp_path: Path) -> None:
    _, written = on_terminal(["losses"], tmp_path, width=80)
    lines = lines_of(written)
    assert max(map(len, lines)) <= 80
    assert len(lines) < 100
    assert any(re.match(r"orpo +\w+", line) for line in lines)
    assert "120 columns have room for its needs, reference, means and paper, too." in lines


def test_a_wide_terminal_shows_a_method_on_one_line(tmp_path: Path) -> None:
    _, written = on_terminal(["losses"], tmp_path, width=240)
    (line,) = [line for line in lines_of(written) if line.startswith("simpo ")]
    assert re.search(r"pairs +- +pair +Meng et al. 2024, 2405.14734 +Simple preference|Logistic loss", line)


@pytest.mark.parametrize("said", [{"TERM": "dumb"}, {"TERM": "unknown"}])
def test_a_dumb_terminal_gets_no_control_characters(said: dict[str, str], tmp_path: Path) -> None:
    for words in (["losses"], ["losses", "simpo"], ["--help"]):
        code, written = on_terminal(words, tmp_path, **said)
        assert code == 0
        assert b"\x1b" not in written


def test_no_color_leaves_colours_out(tmp_path: Path) -> None:
    for words in (["losses"], ["train", "recipe=quickstart", "--show-config"]):
        code, written = on_terminal(words, tmp_path, NO_COLOR="1")
        assert code == 0
        assert not COLOUR.search(written)


def test_a_pipe_gets_no_control_characters(tmp_path: Path) -> None:
    done = prefopt(["losses"], tmp_path)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run of seconds but for its folder: 16 steps."""
    folder = tmp_path_factory.mktemp("terminals")
    made = overrides(make_model(folder / "model"), make_pairs(folder / "pairs.jsonl"), folder / "unused")
    return ["train", *made[:-1], f"data.cache_dir={folder / 'cache'}", "loss=simpo"]


def test_json_leaves_one_object_on_stdout_and_quiet_nothing(words: list[str], tmp_path: Path) -> None:
    run = [*words, f"dir={tmp_path / 'run'}", "train.max_steps=2"]
    done = prefopt([*run, "--json"], tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["state"] == "done"
    assert found["dir"] == str(tmp_path / "run")
    assert found["model"] == str(tmp_path / "run" / "model")
    assert found["result"] == json.loads((tmp_path / "run" / "result.json").read_text())
    assert "step 2/2" in done.stderr
    again = prefopt([*run, "--quiet"], tmp_path / "cache")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    both = prefopt([*run, "--quiet", "--json"], tmp_path / "cache")
    assert json.loads(both.stdout) == found
    assert both.stderr == ""


@pytest.mark.parametrize("shows", ["--dry-run", "--show-config"])
def test_json_and_quiet_are_refused_beside_what_shows_something(shows: str, words: list[str], tmp_path: Path) -> None:
    for option in ("--json", "--quiet"):
        done = prefopt([*words, option, shows], tmp_path)
        assert done.returncode == 2
        assert f"{option} has no effect beside {shows}" in done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_training_on_a_narrow_terminal_keeps_its_figures_in_sight(words: list[str], tmp_path: Path) -> None:
    code, written = on_terminal([*words, f"dir={tmp_path / 'run'}"], tmp_path, width=40)
    assert code == 0, written.decode()
    assert re.search(rb"step 16/16  loss [\d.]+  accuracy", ESCAPE.sub(b"", written))
    assert b"\x1b[?25h" in written  # the cursor that the bar hid is back


@pytest.mark.slow
@pytest.mark.parametrize(
    "said",
    [pytest.param({"TERM": "dumb"}, marks=pytest.mark.long), {"CI": "true", "NO_COLOR": "1"}],
    ids=["dumb", "ci"],
)
def test_training_where_nothing_can_be_written_over_prints_lines(
    said: dict[str, str], words: list[str], tmp_path: Path
) -> None:
    code, written = on_terminal([*words, f"dir={tmp_path / 'run'}"], tmp_path, width=60, **said)
    assert code == 0, written.decode()
    assert b"\x1b" not in written
    assert any(line.startswith("step 16/16  loss ") for line in lines_of(written))


@pytest.mark.slow
def test_ctrl_c_once_saves_and_twice_leaves_at_once(words: list[str], tmp_path: Path) -> None:
    run = [*words, f"dir={tmp_path / 'run'}", "train.epochs=4000", *LONG_STEPS]
    code, said = interrupted(run, tmp_path, times=1)
    assert code == 75, said
    saved = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert saved
    assert "the same command goes on" in said
    began = time.monotonic()
    code, said = interrupted(run, tmp_path, times=2)
    assert code == 130, said
    assert "Traceback" not in said
    assert time.monotonic() - began < 60
    assert sorted((tmp_path / "run" / "checkpoints").glob("step-*")) == saved


def interrupted(run: list[str], cache: Path, times: int) -> tuple[int, str]:
    """Exit code and words of a run that got Ctrl-C, so many times at once, some steps after its start."""
    before = len(metrics(cache / "run"))
    process = start(run, cache)
    deadline = time.monotonic() + 120
    while len(metrics(cache / "run")) < before + 5:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err
