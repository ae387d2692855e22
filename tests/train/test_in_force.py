"""A run that is not the one that was planned says so before its first step."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ragged import settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import ROOT, environment, make_model, make_pairs, overrides

from prefopt.errors import RunError
from prefopt.model.load import load_policy
from prefopt.train import in_force
from prefopt.train.engine import Engine


def made(engine_name: str = "one", **optim: Any) -> Engine:
    run = settings(engine_name)
    for key, value in {"weight_decay": 0.1, **optim}.items():
        setattr(run.optim, key, value)
    engine = Engine(run)
    engine.wrap(load_policy(run.model, longest=64))
    return engine


def check(engine: Engine) -> None:
    got = in_force.read(engine.kind, engine.world_size, engine.device.type)
    in_force.check(got, in_force.planned(engine.run, engine.world_size, engine.device.type), engine.run)


def test_one_line_says_what_runs() -> None:
    line = made().in_force
    assert line.startswith(
        "one process on cpu, AdamW with decoupled weight decay 0.1, float32 weights, float32 gradients"
    )
    assert "clipping at 1" in line
    assert "no weight decay, float32 weights" in made(weight_decay=0.0, name="rmsprop").in_force


def as_adam(engine: Engine) -> str:
    engine.kind.optimizer = torch.optim.Adam(engine.policy.parameters(), weight_decay=0.1)
    return "weight decay: weight decay in the gradient 0.1, planned was decoupled weight decay 0.1"


def as_another_class(engine: Engine) -> str:
    engine.kind.optimizer = torch.optim.SGD(engine.policy.parameters(), weight_decay=0.1)
    return "optimizer: SGD, planned was AdamW"


def with_l2(engine: Engine) -> str:
    engine.kind.inner.param_groups[0]["decoupled_weight_decay"] = False
    return "weight decay in the gradient"


def with_another_decay(engine: Engine) -> str:
    engine.kind.inner.param_groups[0]["weight_decay"] = 0.01
    return "decoupled weight decay 0.01, planned was decoupled weight decay 0.1"


def clipped_at_nothing(engine: Engine) -> str:
    run = engine.kind.run
    engine.kind.run = replace(run, optim=replace(run.optim, max_grad_norm=None))
    return "clipping: None, planned was 1.0"


def in_bfloat16(engine: Engine) -> str:
    engine.policy.to(torch.bfloat16)
    return "planned was float32 weights; gradients: bfloat16, planned was float32"


@pytest.mark.parametrize(
    "lie", [as_adam, as_another_class, with_l2, with_another_decay, clipped_at_nothing, in_bfloat16]
)
def test_what_was_not_planned_is_refused(lie: Callable[[Engine], str]) -> None:
    engine = made()
    check(engine)
    said = lie(engine)
    with pytest.raises(RunError) as caught:
        check(engine)
    assert said in str(caught.value)


def test_fsdp_that_splits_nothing_is_refused() -> None:
    engine = made("fsdp")
    try:
        assert engine.in_force.startswith("FSDP2, gloo on cpu, AdamW")
        check(engine)
        engine.kind.policy = load_policy(engine.run.model, longest=64)
        with pytest.raises(RunError, match="engine: FSDP2 without split weights, planned was FSDP2"):
            check(engine)
    finally:
        engine.close()


def test_a_rank_that_was_planned_among_two_and_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFOPT_WORLD_SIZE", "2")
    with pytest.raises(RunError, match="prefopt planned 2 processes but this one sees 1"):
        Engine(settings("one"))


def test_a_rank_that_was_started_among_two_and_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="the launcher started 2 processes but this one sees 1"):
        Engine(settings("one"))


def test_an_environment_that_loads_and_splits_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RunError, match="sets ACCELERATE_USE_FSDP"):
        Engine(settings("one"))


def test_ranks_of_other_versions_or_settings_are_named() -> None:
    record = in_force.rank_record(settings("one"))
    in_force.check_ranks([("a", record), ("b", record)])
    with pytest.raises(RunError, match=r"rank 1 on b has torch 1\.0, rank 0 on a has "):
        in_force.check_ranks([("a", record), ("b", {**record, "torch": "1.0"})])
    other = in_force.rank_record(settings("one", lora=True))
    with pytest.raises(RunError, match=r"rank 1 on b has run\.yaml "):
        in_force.check_ranks([("a", record), ("b", other)])


@pytest.mark.slow
def test_an_environment_by_which_accelerate_leaves_deepspeed_out(tmp_path: Path) -> None:
    words = overrides(make_model(tmp_path / "model"), make_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-m", "prefopt.cli", "train", *words, "deepspeed=zero2"],
        env={**environment(tmp_path / "cache"), "ACCELERATE_USE_CPU": "1"},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    assert "the recipe asks for DeepSpeed but accelerate runs MULTI_CPU" in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
