"""The benchmarks run, and what they compute is right; what they measure is for docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from bench.llama import Shape  # noqa: E402
from bench.matrix_rate import floor_operations, linears  # noqa: E402
from bench.one_step import Spec  # noqa: E402
from bench.pair_rows import mix  # noqa: E402


def test_the_floor_counts_each_token_once() -> None:
    shape = Shape(hidden=4, inner=6, layers=2, heads=2, key_heads=1, vocabulary=10, tied=True)
    assert linears(shape) == [(4, 4), (4, 2), (4, 2), (4, 4), (4, 6), (4, 6), (6, 4)]
    weights = 2 * (16 + 8 + 8 + 16 + 24 + 24 + 24)
    prompt, chosen, rejected = 5, 3, 2
    tokens = prompt + chosen + rejected
    predicted = chosen + rejected + 2  # an EOS each
    seen = 25 / 2 + 5 * 3 + 9 / 2 + 5 * 2 + 4 / 2
    forward = 2 * weights * tokens + 2 * 4 * 10 * predicted
    attention = 2 * 4 * seen  # layers, hidden
    rows = [[prompt, chosen, rejected]]
    assert floor_operations(shape, rows, with_reference=False) == 3 * forward + 14 * attention
    assert floor_operations(shape, rows, with_reference=True) == 4 * forward + 18 * attention


def test_made_up_rows_are_the_same_each_time_and_all_different() -> None:
    rows = mix(60, 20, count=50)
    assert rows == mix(60, 20, count=50)
    assert len({row.prompt for row in rows}) == 50
    assert all(row.chosen != row.rejected for row in rows)


def one_step(**spec: object) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.one_step", json.dumps(Spec(**spec)._asdict())]  # type: ignore[arg-type]
    done = subprocess.run(
        command, cwd=SCRIPTS, env={**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of a part of a process need Linux")
def test_a_shared_prompt_takes_less_memory_than_a_repeated_one() -> None:
    size = {"prompt": 512, "response": 64, "k": 4, "examples": 1, "vocabulary": 1000}
    shared = one_step(**size)["peak_bytes"]
    padded = one_step(**size, layout="padded")["peak_bytes"]
    assert shared < padded / 2


@pytest.mark.slow
def test_the_scale_benchmark_prepares_and_opens_rows(tmp_path: Path) -> None:
    out = tmp_path / "scale.json"
    command = [sys.executable, str(SCRIPTS / "bench_scale.py"), "data", "--pairs", "200", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(out.read_text())
    assert found["rank"]["steps"] >= 1
    assert found["cold"]["kept"] == found["warm"]["kept"] > 150


@pytest.mark.slow
@pytest.mark.skipif(find_spec("trl") is None, reason="TRL, an opponent of the benchmarks only, is not installed")
def test_trl_gives_the_losses_that_we_give(tmp_path: Path) -> None:
    out = tmp_path / "peers.json"
    command = [sys.executable, str(SCRIPTS / "bench_peers.py"), "--sets", "mix_short", "--methods", "dpo", "simpo"]
    done = subprocess.run(
        [*command, "--steps", "2", "--repeats", "1", "--pairs", "2", "--json", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert all(case["largest_loss_difference"] < 1e-4 for case in json.loads(out.read_text())["cases"])
