"""The token budget of a run: measured once, lowered where it must be, and the same again in a resumed run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ragged import make_engine, ragged_rows, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import environment, make_model, make_pairs, metrics, overrides, prefopt

from prefopt.config import compose
from prefopt.data.plan import Plan
from prefopt.launch import prepare_data, write_folder
from prefopt.losses import make_loss, names
from prefopt.ranks import plan_world
from prefopt.run_folder import State
from prefopt.train.budget import TokenBudget
from prefopt.train.measure import Trial, _largest, largest_share, measure_budget
from prefopt.train.timings import TIMINGS


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A model whose activations are large beside what a process holds anyway, pairs for it, a cache."""
    from transformers import AutoConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("budget")
    model = make_model(folder / "model")
    config = AutoConfig.from_pretrained(model)
    config.update({"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "head_dim": 32})
    LlamaForCausalLM(config).save_pretrained(model)
    return model, make_pairs(folder / "pairs.jsonl", count=60), folder / "cache"


def numbers(run_dir: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in metrics(run_dir)]


@pytest.mark.slow
@pytest.mark.long
def test_a_lowered_budget_stays_lowered_in_a_resumed_run(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, pairs, cache = material
    run_dir = tmp_path / "run"
    more = ["loss=dpo", "model.lora={r: 4, dropout: 0.2}", "train.batch_size=26", "train.save_every=1"]
    more += ["train.tokens_per_micro_batch=8192", "train.max_steps=3", "train.keep_checkpoints=5", "train.eval_every=1"]
    words = overrides(model, pairs, run_dir, *more)
    run = compose(words)
    run_dir.mkdir()
    write_folder(run_dir, State.NEW, run, run, prepare_data(run, cache), plan_world(run), words)
    worker = Path(__file__).with_name("limited.py")
    done = subprocess.run(
        [sys.executable, str(worker), str(run_dir), "110"],
        env=environment(cache), capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "did not fit in 8192 tokens: repeated with" in done.stdout
    budgets = (run_dir / "token_budget.json").read_text()
    straight = numbers(run_dir)
    for name in ("result.json", "model", "checkpoints/step-00000003", "checkpoints/step-00000002"):
        path = run_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    resumed = prefopt(["train", *words], cache)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after step 1 of 3" in resumed.stdout
    assert (run_dir / "token_budget.json").read_text() == budgets
    assert numbers(run_dir) == straight  # dropout falls elsewhere in another cut


@pytest.mark.slow
@pytest.mark.long
def test_auto_is_measured_once_and_gives_the_run_of_the_number_it_finds(
    material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    model, pairs, cache = material
    more = ["loss=dpo", "model.lora={r: 4, dropout: 0.2}", "train.max_steps=3", "train.save_every=1"]
    auto, stated = tmp_path / "auto", tmp_path / "stated"
    words = ["train", *overrides(model, pairs, auto, *more, "train.tokens_per_micro_batch=auto")]
    done = prefopt(words, cache)
    assert done.returncode == 0, done.stderr
    ((step, found),) = json.loads((auto / "token_budget.json").read_text())["from_step"]
    assert step == 0
    assert done.stdout.count(f"train.tokens_per_micro_batch: {found}, measured") == 1
    assert "one micro-batch then holds a rank's share of any step" in done.stdout  # this machine has the memory
    fixed = prefopt(["train", *overrides(model, pairs, stated, *more, f"train.tokens_per_micro_batch={found}")], cache)
    assert fixed.returncode == 0, fixed.stderr
    assert not (stated / "token_budget.json").exists()
    assert numbers(auto) == numbers(stated)  # dropout and all: measuring leaves no trace
    (auto / "result.json").unlink()
    shutil.rmtree(auto / "checkpoints" / "step-00000003")
    again = prefopt(words, cache)
    assert again.returncode == 0, again.stderr
    assert "measured with" not in again.stdout
    assert numbers(auto) == numbers(stated)


PLAN = Plan((np.arange(6), np.arange(6, 13)), (2,))


@pytest.mark.parametrize("loss_name", [name for name in names() if "rewards" not in make_loss({"name": name}).needs])
def test_measuring_changes_nothing_whatever_the_method_needs(loss_name: str) -> None:
    engine = ENGINES.setdefault("lm", None) or make_engine(settings("one"))
    ENGINES["lm"] = engine
    loss = make_loss({"name": loss_name})
    rows = ragged_rows(loss.needs - {"reference", "reference_tokens"}, True)  # columns are not there yet
    weights = {n: p.detach().clone() for n, p in engine.policy.named_parameters()}
    random, said = torch.get_rng_state(), []
    found = measure_budget(engine, loss, rows, PLAN, said.append)
    assert found == max(int(rows.costs[step].sum()) for step in PLAN.steps)
    assert len(said) == 1
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None and torch.equal(p, weights[n]) for n, p in engine.policy.named_parameters())
    assert rows._reference is None
    assert engine.module.training
    assert not engine.optimizer.state


ENGINES: dict[str, Any] = {}


def test_the_largest_share_of_a_step_by_hand() -> None:
    rows = ragged_rows(frozenset(), True)
    rows.costs = np.array([5, 4, 3, 3, 1, 9, 2, 2, 2, 2, 1, 1, 1])
    assert largest_share(PLAN, rows, 1) == 25
    assert largest_share(PLAN, rows, 2) == 13  # 9 + 4 and 5 + 3 + 3 + 1


def test_what_trials_speak_for() -> None:
    small, large = Trial(1000, 100_000, True), Trial(2000, 150_000, True)
    assert _largest([small, large], 200_000, 10**6) == 2944  # 50 bytes a token: 3000, down to a multiple of 64
    assert _largest([small, large], 170_000, 10**6) == 2368
    assert _largest([small, large], 10**6, 10**6) == 3968  # never more than twice what was tried
    assert _largest([small, large], 200_000, 2500) == 2500  # more would change nothing
    assert _largest([small, large, Trial(2400, 0, False)], 200_000, 10**6) == 2368
    assert _largest([small], 10**6, 10**6) == 1000
    assert _largest([small], 10**6, 1000) == 1000


def test_a_budget_is_in_force_from_its_step_on(tmp_path: Path) -> None:
    run = settings("one")
    run.train.tokens_per_micro_batch = "auto"
    engine = make_engine(run)
    budget = TokenBudget(engine, tmp_path)
    assert not budget.is_known
    budget.set(0, 800)
    budget.set(5, 400)
    budget.set(5, 200)
    for same in (budget, TokenBudget(engine, tmp_path)):
        assert [same.at(step) for step in (0, 4, 5, 99)] == [800, 800, 200, 200]
    assert asdict(run)["train"]["tokens_per_micro_batch"] == "auto"
    assert os.listdir(tmp_path) == ["token_budget.json"]
