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

pytestmark = pytest.mark.slow
WORKER = Path(__file__).with_name("engine_table.py")
RELATIVE = 1e-5
NAMES = {
    "ddp": "DDP",
    "zero2off": "DeepSpeed ZeRO-2 with optimizer on the CPU",
    "zero3off": "DeepSpeed ZeRO-3 with optimizer on the CPU and param on the CPU",
    "fsdp": "FSDP2",
}
ALL = list(engine_table.cases())
FLOAT32 = [case for case in ALL if case[3] == "float32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def straight(folder: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """One plain process; by all of a case but its engine."""
    tokenizer = engine_table.make_tokenizer()
    plain = [case for case in ALL if case[0] == "ddp"]
    return {case[1:]: three_steps(case, tokenizer, folder_of(folder / "straight", case)) for case in plain}


@pytest.fixture(scope="module")
def table(folder: Path, straight: dict[tuple[str, ...], dict[str, Any]]) -> dict[tuple[int, Case], dict[str, Any]]:
    found = {}
    for world_size in (1, 2):
        out = folder / f"ranks-{world_size}"
        out.mkdir()
        words = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(world_size), str(WORKER)]
        done = subprocess.run(
            [sys.executable, "-m", *words, str(out), str(folder / "straight")],
            env={**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
            capture_output=True, text=True, check=False, timeout=550,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        results = torch.load(out / "results.pt", weights_only=False)
        found |= {(world_size, case): result for case, result in results.items()}
    return found


def keys(cases: list[Case]) -> list[Any]:
    """Ranks and case, without the plain process itself."""
    return [
        pytest.param(ranks, case, id=f"{ranks}-{'-'.join(case)}")
        for ranks in (1, 2)
        for case in cases
        if (ranks, case[0]) != (1, "ddp")
    ]


def assert_close(got: dict[str, Any], expected: dict[str, Any], relative: float = RELATIVE) -> None:
    """Metrics of the last step and the weights after it."""
    assert got["metrics"].keys() == expected["metrics"].keys()
    for name, value in expected["metrics"].items():
        assert got["metrics"][name] == pytest.approx(value, rel=relative, abs=relative / 100), name
    assert got["weights"].keys() == expected["weights"].keys()
    for name, value in expected["weights"].items():
        assert (got["weights"][name].double() - value.double()).norm() <= relative * value.double().norm(), name


def at(result: dict[str, Any], step: int) -> dict[str, Any]:
    return {"metrics": result["metrics"][step], "weights": result["weights"]}


@pytest.mark.parametrize(("ranks", "case"), keys(FLOAT32))
def test_three_steps_are_those_of_one_process(ranks: int, case: Case, table: Any, straight: Any) -> None:
    got, expected = table[ranks, case], straight[case[1:]]
    for step in range(3):
        assert_close(at(got, step), at(expected, step))
    assert got["in_force"].startswith(NAMES.get(case[0], f"DeepSpeed ZeRO-{case[0][-1]}"))


@pytest.mark.parametrize(("ranks", "case"), keys(ALL))
def test_resuming_is_exact(ranks: int, case: Case, table: Any) -> None:
    got = table[ranks, case]
    assert got["resumed"]["metrics"] == got["metrics"][2]
    for name, value in got["weights"].items():
        assert torch.equal(got["resumed"]["weights"][name], value), name


@pytest.mark.parametrize(("ranks", "case"), keys(FLOAT32))
def test_goes_on_from_one_plain_process_and_one_plain_process_from_it(
    ranks: int, case: Case, table: Any, straight: Any, folder: Path
) -> None:
    expected = at(straight[case[1:]], 2)
    assert_close(table[ranks, case]["taken_over"], expected)
    (path,) = (folder_of(folder / f"ranks-{ranks}", case) / "checkpoints").glob("step-*")
    assert_close(third_step(("ddp", *case[1:]), path), expected)


@pytest.mark.parametrize(("ranks", "case"), keys([case for case in FLOAT32 if case[2] == "dpo"]))
def test_the_saved_model_is_the_trained_one(ranks: int, case: Case, table: Any, folder: Path) -> None:
    saved = folder_of(folder / f"ranks-{ranks}", case) / "model"
    assert (saved / ("adapter_model.safetensors" if case[1] == "lora" else "model.safetensors")).is_file()
    assert verify(str(saved), str(saved / "probe.safetensors")) == 0


@pytest.mark.parametrize(("ranks", "case"), keys([case for case in ALL if case[3] == "bfloat16"]))
def test_bfloat16_is_near_float32(ranks: int, case: Case, table: Any, straight: Any) -> None:
    got, expected = table[ranks, case], straight[(*case[1:3], "float32")]
    for step in range(3):
        for name in ("loss", "grad_norm"):
            assert got["metrics"][step][name] == pytest.approx(expected["metrics"][step][name], rel=0.1), (step, name)


def test_the_steps_change_the_weights_and_are_clipped(straight: dict[tuple[str, ...], dict[str, Any]]) -> None:
    for result in straight.values():
        assert result["metrics"][0]["grad_norm"] > 1.0
        assert result["metrics"][2]["loss"] < 0.99 * result["metrics"][0]["loss"]
