"""Settings of FSDP2 on one process, where torch splits, gathers and reduces as on many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from ragged import make_engine, one_step, settings
from torch.distributed.tensor import DTensor

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
