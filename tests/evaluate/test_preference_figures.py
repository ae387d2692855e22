"""Figures by hand on three rows; and of every method as training's own evaluation gives them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
from ragged import LOSSES, RaggedSet, make_engine, ragged_rows, runs_on, settings
from tiny import make_model

from prefopt.batch import Batch, Outputs
from prefopt.data.tokenizer import load_tokenizer
from prefopt.errors import RunError, UserError
from prefopt.evaluate.measure import Figure
from prefopt.evaluate.measured_sets import MeasuredSet, sets_of_files
from prefopt.evaluate.preference_figures import preference_figures
from prefopt.evaluate.row_scores import score_rows
from prefopt.evaluate.scored_set import ScoredSet
from prefopt.evaluate.set_settings import read_sets
from prefopt.losses import make_loss
from prefopt.settings import DataSettings
from prefopt.train.engine import Engine
from prefopt.train.evaluate import evaluate
from prefopt.train.rows import Rows
from prefopt.train.signals import StopFlag

ROWS = [
    {"prompt": "a", "chosen": "xx", "rejected": "y", "kind": "math"},
    {"prompt": "b", "chosen": "x", "rejected": "yyy", "kind": "chat"},
    {"prompt": "b", "chosen": "xxx", "rejected": "yy", "kind": "chat"},
]
LOGPS = np.array([-6.0, -4.0, -2.0, -10.0, -8.0, -6.0])
"""Of chosen and rejected of each row; tokens (EOS included): 3, 2, 2, 4, 4, 3."""
REFERENCE = np.array([-7.0, -4.0, -3.0, -8.0, -7.0, -7.0])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "cache"))


def open_set(
    model: Path, folder: Path, rows: list[dict[str, Any]], needs: frozenset[str] = frozenset({"pairs"}), **said: Any
) -> MeasuredSet:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    named = read_sets({"heldout": {"path": str(file), **said}}, "measure.sets")
    (one,) = sets_of_files(named, DataSettings(max_length=200), load_tokenizer(str(model)), needs)
    return one


def scored(one: MeasuredSet, reference: bool = False) -> ScoredSet:
    lengths = np.array([3, 2, 2, 4, 4, 3])
    assert one.data.response_lengths.tolist() == lengths.tolist()
    columns = {
        "lengths": lengths,
        "logps": LOGPS,
        "token_logps": np.repeat(LOGPS / lengths, lengths).astype(np.float32),
        "prompt_lengths": one.data.prompt_lengths,
        "prompt_counts": np.zeros(3, dtype=np.int64),
        "prompt_logps": np.zeros(0, dtype=np.float32),
    }
    if not reference:
        return ScoredSet(one.data, columns)
    beside = {"logps": REFERENCE, "token_logps": np.repeat(REFERENCE / lengths, lengths)}
    return ScoredSet(one.data, columns, beside)


def values(found: dict[str, Figure]) -> dict[str, float]:
    return {name: figure.value for name, figure in found.items()}


def test_figures_of_a_language_model_by_hand(model: Path, tmp_path: Path) -> None:
    found = preference_figures(scored(open_set(model, tmp_path, ROWS)), None, None, 100, 0)
    assert values(found) == pytest.approx(
        {
            "logps/chosen": -16 / 3,
            "logps/rejected": -20 / 3,
            "logps/accuracy": 1 / 3,
            "mean_logps/chosen": -5 / 3,
            "mean_logps/rejected": (-2 - 2.5 - 2) / 3,
            "mean_logps/accuracy": (0.5 + 1 + 0.5) / 3,
            "nll": 16 / 9,
            "perplexity": math.exp(16 / 9),
            "length/chosen": 3.0,
            "length/rejected": 3.0,
        }
    )
    assert {found[name].count for name in ("logps/accuracy", "logps/chosen", "length/rejected")} == {3}
    assert found["nll"].count == 9
    assert all(f.low is not None and f.high is not None and f.low <= f.value <= f.high for f in found.values())


def test_loss_rewards_and_logratios_by_hand(model: Path, tmp_path: Path) -> None:
    whole = scored(open_set(model, tmp_path, ROWS), reference=True)
    found = values(preference_figures(whole, whole.judge(make_loss({"name": "dpo", "beta": 0.5})), None, 100, 0))
    # log-ratios: chosen 1, 1, -1; rejected 0, -2, 1; margins 0.5, 1.5, -1
    losses = [math.log1p(math.exp(-margin)) for margin in (0.5, 1.5, -1.0)]
    assert found["loss"] == pytest.approx(sum(losses) / 3)
    assert found["loss/dpo"] == found["loss"]
    assert found["rewards/chosen"] == pytest.approx(0.5 / 3)
    assert found["rewards/rejected"] == pytest.approx(-0.5 / 3)
    assert found["rewards/margin"] == pytest.approx(1 / 3)
    assert found["rewards/accuracy"] == pytest.approx(2 / 3)
    assert found["logratio/chosen"] == pytest.approx(1 / 3)
    assert found["logratio_per_token/chosen"] == pytest.approx(1 / 9)
    assert found["logratio_per_token/rejected"] == pytest.approx(-1 / 9)


def test_accuracy_of_categories_and_its_mean_over_them(model: Path, tmp_path: Path) -> None:
    one = open_set(model, tmp_path, [*ROWS[:2], {**ROWS[2], "kind": None}], category="kind")
    assert one.categories == ["math", "chat", None]
    assert one.left_out == {"without kind, in no category": 1}
    found = preference_figures(scored(one), None, one.categories, 100, 0)
    assert found["logps/accuracy/math"].value == 0.0
    assert found["logps/accuracy/chat"].value == 1.0
    assert found["logps/accuracy/categories"].value == 0.5
    assert [found[f"logps/accuracy/{name}"].count for name in ("math", "chat", "categories")] == [1, 1, 2]


def test_rows_of_equal_prompts_are_drawn_together(model: Path, tmp_path: Path) -> None:
    one = scored(open_set(model, tmp_path, ROWS))
    assert len(set(one.data.prompt_hashes.tolist())) == 2
    found = preference_figures(one, None, None, 400, 0)
    # Prompt a has 0 of 1 right, b 1 of 2: twice a, both, twice b.
    assert found["logps/accuracy"].low == 0.0
    assert found["logps/accuracy"].high == 0.5


def test_rows_that_cannot_be_measured_are_counted_by_reason(model: Path, tmp_path: Path) -> None:
    bad = [{"prompt": "c", "chosen": "x", "rejected": "x"}, {"prompt": "d", "chosen": "", "rejected": "y"}]
    one = open_set(model, tmp_path, [*ROWS, *bad])
    assert len(one.data) == 3
    assert one.left_out == {"chosen equals rejected": 1, "empty response": 1}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": "a", "completion": "x"}], "the method needs pairs, which these rows"),
        ([{"prompt": "c", "chosen": "x", "rejected": "x"}], "not one row of"),
    ],
)
def test_set_without_pairs_is_refused(model: Path, tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(UserError) as caught:
        open_set(model, tmp_path, rows)
    assert said in caught.value.message


def test_column_of_categories_that_there_is_not_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_set(model, tmp_path, ROWS, category="kinds")
    assert "measure.sets.heldout.category" in caught.value.message
    assert "did you mean 'kind'?" in caught.value.hint


@pytest.fixture(scope="module", params=["lm", "scalar"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    run = settings("one")
    run.train.tokens_per_micro_batch = 150
    made = make_engine(run, scalar_head=request.param == "scalar")
    made.module.eval()
    yield made
    made.close()


def forward_of(engine: Engine) -> Any:
    def forward(batch: Batch, asks: frozenset[str] = frozenset(), /) -> Outputs:
        return engine.policy(batch, asks, engine.live_reference)

    return forward


def columns_of(engine: Engine, rows: Rows, needs: frozenset[str], budget: int = 100) -> dict[str, np.ndarray]:
    """In two chunks, as a folder keeps them."""
    chunks = [
        score_rows(forward_of(engine), rows, places, needs, budget, "cpu")
        for places in (np.arange(8), np.arange(8, len(rows)))
    ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


@pytest.mark.parametrize("name", LOSSES)
def test_figures_are_those_of_trainings_evaluation(engine: Engine, name: str) -> None:
    if not runs_on(engine, name):
        pytest.skip("a method of the other head")
    loss = make_loss(LOSSES[name])
    with_columns = ragged_rows(loss.needs, engine.policy.shares_prompts)
    theirs = evaluate(engine, loss, with_columns, 150, StopFlag())
    data = RaggedSet(loss.needs)
    policy = columns_of(engine, Rows(data, loss.needs, engine.policy.shares_prompts), loss.needs)  # type: ignore[arg-type]
    reference, kl = None, None
    if "reference" in loss.needs:
        reference = {"logps": with_columns.reference, "token_logps": np.zeros(len(policy.get("token_logps", ())))}
        if "reference_tokens" in loss.needs:
            reference["token_logps"] = -np.linspace(1.0, 6.0, int(with_columns.token_offsets[-1]))
    if with_columns.baseline is not None:
        others = columns_of(engine, with_columns.baseline, frozenset())["logps"]
        kl = float((others - with_columns.baseline.reference).mean())
    found = ScoredSet(data, policy, reference, kl)  # type: ignore[arg-type]
    ours = values(preference_figures(found, found.judge(loss), None, 5, 0))
    same = {key for key in theirs if not math.isnan(theirs[key])}
    assert same <= set(ours)
    assert {key: ours[key] for key in same} == pytest.approx({key: theirs[key] for key in same}, rel=1e-5, abs=1e-6)


def test_budget_of_tokens_does_not_change_the_columns(engine: Engine) -> None:
    rows = Rows(
        RaggedSet(frozenset({"pairs"})),  # type: ignore[arg-type]
        frozenset({"pairs", "rewards"} if engine.policy.has_scalar_head else {"pairs"}),
        engine.policy.shares_prompts,
    )
    one, *others = (columns_of(engine, rows, frozenset(), budget) for budget in (10_000, 120, 1))
    for other in others:
        assert other.keys() == one.keys()
        for column, numbers in one.items():
            assert other[column] == pytest.approx(numbers, abs=1e-5), column


def test_number_that_is_not_finite_names_the_row(engine: Engine) -> None:
    rows = Rows(RaggedSet(frozenset({"pairs"})), frozenset({"pairs", "rewards"}), engine.policy.shares_prompts)  # type: ignore[arg-type]
    if not engine.policy.has_scalar_head:
        pytest.skip("the head's weight is the easiest to spoil")
    import torch

    head = engine.policy.pretrained.score.weight
    before = head.detach().clone()
    try:
        with torch.no_grad():
            head[:] = math.nan
        with pytest.raises(RunError) as caught:
            score_rows(forward_of(engine), rows, np.arange(3), frozenset(), 100, "cpu")
    finally:
        with torch.no_grad():
            head[:] = before
    assert caught.value.message == "row-0: rewards has a number that is not finite"
