"""Memory that is really refused: steps are repeated with half the budget, and auto finds what fits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

WORKER = Path(__file__).with_name("limited.py")
PLENTY = "1000000"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Activations of some 60 KiB a token, so that a few thousand tokens are much beside what a process holds anyway."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("memory") / "model"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def work(
    model: Path, folder: Path, num_ranks: int, loss: str, tokens: str, spare_mib: str, **more: str
) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    start = [sys.executable]
    if num_ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_ranks)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "MODEL": str(model), "LENGTH": "90", **more}
    return subprocess.run(
        [*start, str(WORKER), str(folder / "out.pt"), loss, tokens, spare_mib],
        env=env, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip


def result(done: subprocess.CompletedProcess[str], folder: Path) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "out.pt", weights_only=False)


@pytest.mark.parametrize(
    ("loss", "num_ranks"),  # kto looks at the whole step before it computes any of it
    [
        pytest.param("dpo", 1, marks=pytest.mark.slow),
        ("dpo", 2),
        ("kto", 1),
        pytest.param("kto", 2, marks=pytest.mark.slow),
    ],
)
def test_a_step_that_does_not_fit_is_repeated_and_is_the_step_of_the_smaller_budget(
    loss: str, num_ranks: int, model: Path, tmp_path: Path
) -> None:
    limited, straight = tmp_path / "limited", tmp_path / "straight"
    got = result(work(model, limited, num_ranks, loss, "4096", "100"), limited)
    budgets = json.loads((limited / "token_budget.json").read_text())["from_step"]
    assert budgets[0][0] == 0
    assert 256 <= budgets[-1][1] <= 2048
    assert got["said"][0].startswith("step 1 did not fit in 4096 tokens: repeated with 2048")
    straight.mkdir()
    shutil.copy(limited / "token_budget.json", straight)  # the same budgets from the beginning, and memory enough
    expected = result(work(model, straight, num_ranks, loss, "4096", PLENTY), straight)
    assert expected["said"] == []
    assert got["losses"] == pytest.approx(expected["losses"], rel=1e-6)
    for name, weight in expected["weights"].items():  # with dropout: the random states were put back
        assert (got["weights"][name] - weight).norm() <= 1e-6 * weight.norm(), name


def test_a_row_that_does_not_fit_by_itself_is_named(model: Path, tmp_path: Path) -> None:
    done = work(model, tmp_path / "run", 1, "dpo", "4096", "20", LENGTH="2000")
    assert done.returncode != 0
    assert "does not fit in memory by itself, with 4058 tokens" in done.stderr
    assert "RunError: step 1: row-" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "name"),
    [({"ZERO": "2"}, "DeepSpeed"), ({"ZERO": "3"}, "DeepSpeed"), ({"FSDP": "1"}, "FSDP")],
    ids=["zero2", "zero3", "fsdp"],
)
def test_a_step_whose_ranks_meet_in_it_ends_with_a_sentence(
    engine: dict[str, str], name: str, model: Path, tmp_path: Path
) -> None:
    done = work(model, tmp_path / "run", 2, "dpo", "4096", "20", **engine)
    assert done.returncode != 0
    assert f"under {name} a step cannot be repeated" in done.stderr
    assert "lower train.tokens_per_micro_batch below" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_auto_finds_a_budget_that_fits_under_a_limit(num_ranks: int, model: Path, tmp_path: Path) -> None:
    found = {}
    for spare in ("180", "300"):
        folder = tmp_path / spare
        got = result(work(model, folder, num_ranks, "dpo", "auto", spare), folder)
        ((step, found[spare]),) = json.loads((folder / "token_budget.json").read_text())["from_step"]
        assert step == 0
        (said,) = got["said"]  # and no step had to be repeated
        assert said.startswith(f"train.tokens_per_micro_batch: {found[spare]}, measured")
    assert 238 <= found["180"] < found["300"] < 24 * 238
    assert found["300"] > 1.2 * found["180"]
    folder = tmp_path / "plenty"
    got = result(work(model, folder, num_ranks, "dpo", "auto", "100000"), folder)
    ((_, most),) = json.loads((folder / "token_budget.json").read_text())["from_step"]
    assert most == 24 * 238 // num_ranks  # a rank's share of a step: more would change nothing
