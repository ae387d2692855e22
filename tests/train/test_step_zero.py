"""Before the first update policy and reference agree, or the run ends by the name of a row: each cause is planted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ragged import LOSSES, REFERENCE, RaggedSet, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import ROOT, kill_at_step, make_model, make_pairs, metrics, overrides, prefopt

from prefopt.data.plan import Plan
from prefopt.errors import RunError
from prefopt.losses import make_loss
from prefopt.model.load import load_policy
from prefopt.needs import LIVE
from prefopt.settings import LoraSettings, RunSettings
from prefopt.train.budget import TokenBudget
from prefopt.train.engine import Engine
from prefopt.train.live_reference import attach_live_reference
from prefopt.train.loader import Loader
from prefopt.train.rows import Rows
from prefopt.train.scoring import score, sequence_logps, token_logps
from prefopt.train.step_zero import check_start

WITH_REFERENCE = [name for name, loss in LOSSES.items() if make_loss(loss).needs & ({"reference"} | LIVE)]


def start(run: RunSettings) -> Engine:
    """An engine as at the start of a run."""
    run.train.tokens_per_micro_batch = 120  # several micro-batches
    engine = Engine(run)
    torch.manual_seed(3)
    engine.wrap(load_policy(run.model, longest=64))
    return engine


def score_reference(engine: Engine, needs: frozenset[str]) -> Rows:
    """The ragged rows with columns as a run attaches them: scored by the policy, adapters off, dropout off."""
    rows = Rows(RaggedSet(needs), needs, engine.policy.shares_prompts)  # type: ignore[arg-type]
    engine.module.eval()
    with engine.policy.reference():
        if "reference_tokens" in needs:
            rows.set_reference_tokens(score(engine, engine, token_logps(rows)))
        else:
            rows.set_reference(score(engine, engine, sequence_logps(rows)))
    engine.module.train()
    attach_live_reference(engine, needs, 64, lambda line: None)
    return rows


def check(engine: Engine, rows: Rows, name: str, folder: Path) -> str:
    """What is said over one step of all rows."""
    said: list[str] = []
    plan = Plan((np.arange(len(rows)),), (1,))
    with Loader(plan, rows, engine) as loader:
        check_start(engine, make_loss(LOSSES[name]), loader, TokenBudget(engine, folder), said.append)
    return "\n".join(said)


def refused(engine: Engine, rows: Rows, name: str, folder: Path) -> str:
    with pytest.raises(RunError) as caught:
        check(engine, rows, name, folder)
    assert "\n" not in caught.value.message
    assert "dropout" in caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_every_method_with_a_reference_starts_in_agreement(name: str, tmp_path: Path) -> None:
    engine = start(settings("one"))
    needs = make_loss(LOSSES[name]).needs
    rows = score_reference(engine, needs)
    if "margins" in needs and name == "modpo":
        rows.set_margins(np.zeros((rows.num_responses, 1)))
    if "kl" in needs:
        assert rows.baseline is not None
        rows.baseline.set_reference(np.zeros(rows.baseline.num_responses))
    said = check(engine, rows, name, tmp_path)
    assert said.startswith("step 0: policy and reference agree to ")
    assert said.endswith(f" nats over {rows.num_responses} responses")
    assert float(said.split()[7]) < 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_with_dropout_agree_because_they_start_at_zero(dtype: str, tmp_path: Path) -> None:
    run = settings("one", dtype=dtype)
    run.model.lora = LoraSettings(r=4, dropout=0.5)
    engine = start(run)
    rows = score_reference(engine, frozenset({"pairs", "reference"}))
    before = torch.get_rng_state()
    said = check(engine, rows, "dpo", tmp_path)
    assert float(said.split()[7]) < (1e-4 if dtype == "float32" else 0.3)
    assert torch.equal(torch.get_rng_state(), before)
    assert engine.module.training


def drop_out(engine: Engine, rows: Rows) -> None:
    """A dropout layer that is on when the policy trains."""
    layer = engine.policy.pretrained.get_input_embeddings()
    layer.register_forward_hook(lambda module, _, out: torch.nn.functional.dropout(out, 0.1, module.training))


def of_another_model(engine: Engine, rows: Rows) -> None:
    """A column that another model made."""
    run = settings("one")
    run.model.path = str(REFERENCE)
    other = start(run)
    rows.set_reference(score(other, other, sequence_logps(rows)))


def other_precision(engine: Engine, rows: Rows) -> None:
    """A column that the same weights made in bfloat16."""
    other = start(settings("one", dtype="bfloat16"))
    rows.set_reference(score(other, other, sequence_logps(rows)))


def other_weights(engine: Engine, rows: Rows) -> None:
    """Weights that have moved since the reference was scored, by 2 %."""
    with torch.no_grad():
        for parameter in engine.policy.parameters():
            parameter.mul_(1.02)


def of_another_row(engine: Engine, rows: Rows) -> None:
    """Two responses that have changed places."""
    column = rows.reference.copy()
    column[[2, 8]] = column[[8, 2]]
    rows.set_reference(column)


@pytest.mark.parametrize(
    "plant", [drop_out, of_another_model, other_precision, other_weights, of_another_row], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_what_is_planted_is_found(plant: Callable[[Engine, Rows], None], name: str, tmp_path: Path) -> None:
    engine = start(settings("one"))
    needs = make_loss(LOSSES[name]).needs
    rows = score_reference(engine, needs)
    if rows.baseline is not None:
        rows.baseline.set_reference(np.zeros(rows.baseline.num_responses))
    plant(engine, rows)
    said = refused(engine, rows, name, tmp_path)
    assert "the log-probability of row-" in said
    if plant is of_another_row:
        assert any(f"row-{place}" in said for place in (1, 3)), said  # responses 2 and 8


def test_one_number_names_its_response(tmp_path: Path) -> None:
    engine = start(settings("one"))
    rows = score_reference(engine, frozenset({"pairs", "reference"}))
    column = rows.reference.copy()
    place = rows.responses_of(6).start + 1
    column[place] += 0.5
    rows.set_reference(column)
    said = refused(engine, rows, "dpo", tmp_path)
    expected = f"the log-probability of row-6 (response 2) is {column[place] - 0.5:.6g} and not {column[place]:.6g}"
    assert expected in said
    assert "(0.5 apart, " in said


def test_a_small_shift_of_all_numbers_is_seen_in_the_loss(tmp_path: Path) -> None:
    """Each is within what rounding explains; that all chosen ones have the same sign is not."""
    engine = start(settings("one"))
    rows = score_reference(engine, frozenset({"pairs", "reference"}))
    column = rows.reference.copy()
    for row in range(len(rows)):
        column[rows.responses_of(row).start] += 3e-3
    rows.set_reference(column)
    loss = make_loss({"name": "dpo", "beta": 1.0})
    plan = Plan((np.arange(len(rows)),), (1,))
    with Loader(plan, rows, engine) as loader, pytest.raises(RunError) as caught:
        check_start(engine, loss, loader, TokenBudget(engine, tmp_path), lambda line: None)
    assert "but the loss is 0.69" in caught.value.message
    assert "and not 0.693147" in caught.value.message


def test_a_live_reference_of_other_weights(tmp_path: Path) -> None:
    engine = start(settings("one"))
    rows = score_reference(engine, make_loss(LOSSES["tdpo"]).needs)
    assert engine.live_reference is not None
    with torch.no_grad():
        for parameter in engine.live_reference.parameters():
            parameter.mul_(1.2)
    assert "the forward KL of row-" in refused(engine, rows, "tdpo", tmp_path)


def test_another_reference_is_not_compared_and_the_check_is_one_forward(tmp_path: Path) -> None:
    engine = start(settings("one"))
    rows = score_reference(engine, frozenset({"pairs", "reference"}))
    calls: list[Any] = []
    engine.policy.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    check(engine, rows, "dpo", tmp_path)
    dealt = rows.cut(np.arange(len(rows)), 1, 120)
    assert len(calls) == dealt.num_micro_batches > 1
    assert not any(calls)
    engine.run.model.reference = str(REFERENCE)
    assert check(engine, rows, "dpo", tmp_path) == ""
    engine.run.model.reference = engine.run.model.path
    assert check(engine, rows, "dpo", tmp_path) != ""
    engine.run.model.reference = None
    assert check(engine, rows, "orpo", tmp_path) == ""


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("zero")
    return make_model(folder / "model"), make_pairs(folder / "pairs.jsonl"), folder / "cache"


@pytest.mark.slow
@pytest.mark.long
def test_a_run_says_so_once(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, pairs, cache = material
    words = ["train", *overrides(model, pairs, tmp_path / "run", "loss=dpo", "train.save_every=2")]
    kill_at_step(words, cache, tmp_path / "run", 4)
    result = prefopt(words, cache)
    assert result.returncode == 0, result.stderr
    assert "resuming after step" in result.stdout
    assert "step 0:" not in result.stdout
    result = prefopt([*words[:-2], f"dir={tmp_path / 'again'}", "loss=dpo", "train.max_steps=1"], cache)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("step 0: policy and reference agree to ") == 1
    assert "nats over 8 responses" in result.stdout


DROPOUT_IN_EVERY_EMBEDDING = """
import torch

forward = torch.nn.Embedding.forward

def with_dropout(self, ids):
    return torch.nn.functional.dropout(forward(self, ids), 0.1, self.training)

torch.nn.Embedding.forward = with_dropout
"""


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_dropout_that_is_on_ends_the_run(
    ranks: int, material: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python imports sitecustomize at its start, in the ranks too: the real command with a model that has dropout."""
    model, pairs, cache = material
    (tmp_path / "sitecustomize.py").write_text(DROPOUT_IN_EVERY_EMBEDDING)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    run_dir = tmp_path / "run"
    more = ["loss=dpo", f"launch.num_processes={ranks}"]
    result = prefopt(["train", *overrides(model, pairs, run_dir, *more)], cache)
    assert result.returncode == 1, result.stdout
    assert "Traceback" not in result.stderr
    said = result.stderr[result.stderr.index("prefopt: ") :].strip().splitlines()
    assert len(said) == 2, said
    assert said[0].startswith("prefopt: step 0: policy and reference are the same model, but ")
    assert "pairs.jsonl:" in said[0]
    assert "likely causes: dropout that is on" in said[1]
    assert metrics(run_dir) == []
    assert not (run_dir / "checkpoints").exists()
    assert not (run_dir / "model").exists()


@pytest.mark.slow
@pytest.mark.long
def test_a_column_of_another_model_under_the_same_key(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Caught when it is loaded, before the step: eight rows are scored again."""
    model, pairs, _ = material
    other, caches = make_model(tmp_path / "other", seed=5), [tmp_path / "own", tmp_path / "others"]
    for path, cache in zip((model, other), caches):
        more = ["loss=dpo", "train.max_steps=1"]
        assert prefopt(["train", *overrides(path, pairs, tmp_path / cache.name / "run", *more)], cache).returncode == 0
    by_size = [{f.stat().st_size: f for f in (cache / "reference").glob("*.npy")} for cache in caches]
    assert len(by_size[0]) == 2
    for size, file in by_size[0].items():
        file.write_bytes(by_size[1][size].read_bytes())
    result = prefopt(["train", *overrides(model, pairs, tmp_path / "run", "loss=dpo")], caches[0])
    assert result.returncode == 1
    assert f"{caches[0] / 'reference'}" in result.stderr
    assert "as this file has it" in result.stderr
    assert metrics(tmp_path / "run") == []
