"""Every engine gives the numbers of one plain process, goes on from the checkpoints of every other, and saves a model.

{1, 2 ranks} x {DDP, ZeRO-0, 1, 2, 3, offload, FSDP2} x {full, LoRA} x {dpo, orpo}: real DeepSpeed, gloo.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import engine_table
import pytest
import torch
from engine_table import Case, folder_of, third_step, three_steps

from prefopt.model.verify import main as verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
WORKER = Path(__file__).with_name("engine_table.py")
RELATIVE = 1e-5
NAMES = {
    "ddp": "DDP",
    "zero2off": "DeepSpeed ZeRO-2 with optimizer on the CPU",
    "zero3off": "DeepSpeed ZeRO-3 with optimizer on the CPU and param on the CPU",
    "fsdp": "FSDP2",
}
ALL = list(engine_table.cases())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def straight(folder: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """One plain process; by all of a case but its engine."""
    tokenizer = engine_table.make_tokenizer()
    plain = [case for case in ALL if case[0] == "ddp"]
    return {case[1:]: three_steps(case, tokenizer, folder_of(folder / "straight", case)) for case in plain}


def run_table(ranks: int, folder: Path) -> dict[Case, dict[str, Any]]:
    """All cases on so many ranks, in one start; their results, checkpoints and models go to a folder of their own."""
    out = folder / f"ranks-{ranks}"
    out.mkdir()
    words = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks), str(WORKER)]
    done = subprocess.run(
        [sys.executable, "-m", *words, str(out), str(folder / "straight")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        capture_output=True, text=True, check=False, timeout=1100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out / "results.pt", weights_only=False)


def assert_close(got: dict[str, Any], expected: dict[str, Any]) -> None:
    """Metrics of a step and the weights after the last."""
    assert got["metrics"].keys() == expected["metrics"].keys()
    for name, value in expected["metrics"].items():
        assert got["metrics"][name] == pytest.approx(value, rel=RELATIVE, abs=1e-7), name
    assert got["weights"].keys() == expected["weights"].keys()
    for name, value in expected["weights"].items():
        assert (got["weights"][name].double() - value.double()).norm() <= RELATIVE * value.double().norm(), name


def at(result: dict[str, Any], step: int) -> dict[str, Any]:
    return {"metrics": result["metrics"][step], "weights": result["weights"]}


def check_resume(got: dict[str, Any]) -> None:
    """A fresh engine that went on from the checkpoint after step 2 is the one that never stopped, bit for bit."""
    assert got["resumed"]["metrics"] == got["metrics"][2]
    for name, value in got["weights"].items():
        assert torch.equal(got["resumed"]["weights"][name], value), name


def check_float32(case: Case, got: dict[str, Any], expected: dict[str, Any], own: Path) -> None:
    """The numbers of one process; it goes on from that process's checkpoint, and that process from its own."""
    for step in range(3):
        assert_close(at(got, step), at(expected, step))
    assert_close(got["taken_over"], at(expected, 2))
    (path,) = (own / "checkpoints").glob("step-*")
    assert_close(third_step(("ddp", *case[1:]), path), at(expected, 2))
    if case[2] == "dpo":
        weights = "adapter_model.safetensors" if case[1] == "lora" else "model.safetensors"
        assert (own / "model" / weights).is_file()
        assert verify(str(own / "model"), str(own / "model" / "probe.safetensors")) == 0


def check_bfloat16(got: dict[str, Any], expected: dict[str, Any]) -> None:
    """Near float32."""
    for step in range(3):
        for name in ("loss", "grad_norm"):
            assert got["metrics"][step][name] == pytest.approx(expected["metrics"][step][name], rel=0.1), (step, name)


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.long), 2])
def test_every_engine_is_one_process(ranks: int, folder: Path, straight: dict[tuple[str, ...], dict[str, Any]]) -> None:
    """One test, because it is one start: two workers of the test runner would make it twice."""
    results = run_table(ranks, folder)
    assert set(results) == {case for case in ALL if (ranks, case[0]) != (1, "ddp")}
    failures = []
    for case, got in results.items():
        expected = straight[(*case[1:3], "float32")]
        try:
            assert got["in_force"].startswith(NAMES.get(case[0], f"DeepSpeed ZeRO-{case[0][-1]}"))
            check_resume(got)
            if case[3] == "float32":
                check_float32(case, got, expected, folder_of(folder / f"ranks-{ranks}", case))
            else:
                check_bfloat16(got, expected)
        except AssertionError as error:
            failures.append(f"{'-'.join(case)}: {error}")
    assert not failures, "\n".join(failures)


def test_the_steps_change_the_weights_and_are_clipped(straight: dict[tuple[str, ...], dict[str, Any]]) -> None:
    for result in straight.values():
        assert result["metrics"][0]["grad_norm"] > 1.0
        assert result["metrics"][2]["loss"] < 0.99 * result["metrics"][0]["loss"]
