"""Settings of FSDP2 on one process, where torch splits, gathers and reduces as on many."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from fsdp_ranks import steps
from ragged import make_engine, one_step, settings
from torch.distributed.tensor import DTensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from recipe_bed import make_stand_in
from safetensors.torch import load_file, save_file
from tiny import make_model, make_pairs, overrides, prefopt

from prefopt.settings import RunSettings
from prefopt.train.engine import Engine


@pytest.fixture(autouse=True)
def _leave_nothing() -> Iterator[None]:
    yield
    forget()


def forget() -> None:
    """As in a new process."""
    AcceleratorState._reset_state(True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def step(run: RunSettings) -> tuple[Engine, dict[str, Any]]:
    forget()
    engine = make_engine(run)
    return engine, one_step(engine, "tdpo", "four")["metrics"]  # with a live reference


def test_weights_that_stay_gathered_give_the_same_step() -> None:
    _, expected = step(settings("one"))
    for reshard in (True, False):
        run = settings("fsdp")
        run.fsdp.reshard_after_forward = reshard
        _, found = step(run)
        assert found == pytest.approx(expected, rel=1e-5)


def test_bfloat16_arithmetic_keeps_float32_shards() -> None:
    _, expected = step(settings("one"))
    run = settings("fsdp")
    run.train.autocast = "bf16"
    engine, found = step(run)
    assert "float32 shards gathered as bfloat16, float32 gradients" in engine.in_force
    assert engine.arithmetic is torch.bfloat16
    assert {p.dtype for p in engine.policy.parameters()} == {torch.float32}
    assert found["loss"] == pytest.approx(expected["loss"], rel=0.02)
    assert found["loss"] != expected["loss"]


def test_a_bfloat16_model_is_saved_as_it_came() -> None:
    engine, _ = step(settings("fsdp", dtype="bfloat16"))
    assert {t.dtype for t in engine.gathered_state().values()} == {torch.bfloat16}
    assert {p.dtype for p in engine.policy.parameters()} == {torch.float32}


def test_generation_finds_embeddings_and_head() -> None:
    answers = []
    for kind in ("fsdp", "one"):
        engine, _ = step(settings(kind))
        with engine.kind.whole_weights(), engine.policy.generating() as model, torch.no_grad():
            ids = torch.tensor([[1, 5, 9, 20]])
            answers.append(model.generate(input_ids=ids, max_new_tokens=5, do_sample=False, pad_token_id=2).tolist())
        engine.kind.state()  # what was gathered is split again
        assert all(isinstance(p, DTensor) for p in engine.policy.parameters()) is (kind == "fsdp")
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_weights_that_one_rank_read_are_those_of_all(tmp_path: Path) -> None:
    families = ["llama", "gemma2", "qwen2", "phi3", "gpt_neox", "mixtral"]  # their buffers are not in the file
    for family in families:
        make_stand_in(tmp_path / family, family)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = [str(Path(__file__).with_name("fsdp_ranks.py")), str(tmp_path), *families]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2))
    run = settings("one")
    expected = steps(Engine(run), run, tmp_path, families)
    assert first.keys() == expected.keys()
    for of, wanted in expected.items():
        assert (first[of].pop("read"), second[of].pop("read")) == (wanted.pop("read"), 0)
        assert first[of] == second[of] == pytest.approx(wanted, rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_what_only_the_reading_rank_sees_ends_all_in_one_sentence(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    pairs = make_pairs(tmp_path / "pairs.jsonl")
    more = ["loss=orpo", "fsdp=full_shard", "launch.num_processes=2"]
    done = prefopt(["train", *overrides(model, pairs, tmp_path / "run", *more)], tmp_path / "cache")
    assert done.returncode == 2, done.stderr
    assert "1 of the 2048 numbers of model.layers.1.mlp.up_proj.weight are not finite" in done.stderr
    assert "Traceback" not in done.stderr
