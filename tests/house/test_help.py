"""Help and listings come at once: no torch, no Hydra."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "hydra", "omegaconf", "transformers", "datasets", "accelerate", "numpy")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["train", "--help"],
        ["data", "--help"],
        ["pairs", "--help"],
        ["eval", "--help"],
        ["rounds", "--help"],
        ["report", "--help"],
        ["losses"],
        ["losses", "dpo"],
    ],
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom prefopt.cli import main\n"
        f"assert main({words!r}) == 0\n"
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules]\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_configuration_error_imports_no_torch() -> None:
    code = (
        "import sys\nfrom prefopt.cli import main\n"
        "assert main(['train', 'recipe=quickstart', 'train.batch_size=0']) == 2\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).returncode == 0


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_help_takes_less_than_half_a_second(words: list[str]) -> None:
    best = min(_seconds(words) for _ in range(5))  # the fastest of five: other work on the machine is not ours
    assert best < 0.5


def _seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "prefopt.cli", *words], capture_output=True, check=True)
    return time.perf_counter() - start
