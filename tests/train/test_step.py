"""What the step refuses, what it counts, and the learning rate of each step."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ragged import RaggedSet, make_engine, ragged_rows, settings

from prefopt.losses import make_loss
from prefopt.settings import OptimSettings
from prefopt.train.engine import Engine
from prefopt.train.evaluate import evaluate
from prefopt.train.nonfinite import NonFiniteError
from prefopt.train.optim import learning_rates
from prefopt.train.rows import Rows
from prefopt.train.scoring import score, sequence_logps
from prefopt.train.signals import StopFlag
from prefopt.train.step import train_step


@pytest.fixture
def engine() -> Engine:
    run = settings("one")
    run.optim.lr = 0.01
    return make_engine(run)


def rows_for(engine: Engine, loss_name: str) -> Rows:
    loss = make_loss({"name": loss_name})
    rows = Rows(RaggedSet(loss.needs), loss.needs, engine.policy.shares_prompts)  # type: ignore[arg-type]
    rows.set_reference(-np.linspace(5.0, 90.0, rows.num_responses))
    return rows


def test_a_reference_that_is_not_finite_stops_the_step_and_names_the_row(engine: Engine) -> None:
    rows = rows_for(engine, "dpo")
    column = -np.linspace(5.0, 90.0, rows.num_responses)
    column[rows.responses_of(6)] = np.nan
    rows.set_reference(column)
    before = {n: p.detach().clone() for n, p in engine.policy.named_parameters()}
    (dealt,) = rows.sweep(1, 300)
    assert dealt.num_micro_batches > 1
    with pytest.raises(NonFiniteError) as error:
        train_step(engine, make_loss({"name": "dpo"}), rows.micro_batches(dealt, 0), step=4)
    assert error.value.rows == ["row-6"]
    assert error.value.tensors == {"dpo": ["row-6"]}
    assert "step 5: dpo not finite in row-6" in str(error.value)
    assert all(torch.equal(p, before[n]) for n, p in engine.policy.named_parameters())


def test_a_weight_that_is_not_finite_stops_the_step_before_an_update(engine: Engine) -> None:
    with torch.no_grad():
        engine.policy.pretrained.lm_head.weight[50, 3] = math.inf
    rows = rows_for(engine, "orpo")
    (dealt,) = rows.sweep(1, 10**6)
    with pytest.raises(NonFiniteError, match="logps"):
        train_step(engine, make_loss({"name": "orpo"}), rows.micro_batches(dealt, 0), step=0)


def test_a_gradient_that_is_not_finite_updates_nothing(engine: Engine) -> None:
    rows = rows_for(engine, "sft")
    handle = engine.policy.pretrained.lm_head.weight.register_hook(lambda g: g.fill_(math.nan))
    before = {n: p.detach().clone() for n, p in engine.policy.named_parameters()}
    (dealt,) = rows.sweep(1, 10**6)
    with pytest.raises(NonFiniteError, match="gradient") as error:
        train_step(engine, make_loss({"name": "sft"}), rows.micro_batches(dealt, 0), step=0)
    assert error.value.tensors == {"gradient": sorted(rows.data[place].id for place in range(len(rows)))}
    assert error.value.seen["loss"] > 0
    handle.remove()
    assert all(torch.equal(p, before[n]) for n, p in engine.policy.named_parameters())


def test_an_evaluation_that_is_not_finite_names_its_rows(engine: Engine) -> None:
    rows = rows_for(engine, "dpo")
    column = -np.linspace(5.0, 90.0, rows.num_responses)
    column[rows.responses_of(6)] = np.nan
    column[rows.responses_of(9)] = np.inf
    rows.set_reference(column)
    with pytest.raises(NonFiniteError, match="evaluation of ragged: dpo not finite in row-6, row-9"):
        evaluate(engine, make_loss({"name": "dpo"}), rows, 300, StopFlag())


def test_a_baseline_names_the_prompt_and_whose_response_it_was(engine: Engine) -> None:
    rows = ragged_rows(make_loss({"name": "kto"}).needs, engine.policy.shares_prompts)
    assert rows.baseline is not None
    column = rows.baseline.reference.copy()
    column[rows.baseline.responses_of(3)] = np.nan
    rows.baseline.set_reference(column)
    (dealt,), (others,) = rows.sweep(1, 10**6), rows.baseline.sweep(1, 10**6)
    with pytest.raises(NonFiniteError) as error:
        train_step(
            engine,
            make_loss({"name": "kto"}),
            rows.micro_batches(dealt, 0),
            step=0,
            baseline=rows.baseline.micro_batches(others, 0),
        )
    assert error.value.tensors["kl"] == ["row-3 answered by row-4"]
    assert "step 1: kl not finite in row-3 answered by row-4; kto not finite in " in str(error.value)


def test_a_term_counted_in_tokens_is_named_by_its_rows(engine: Engine) -> None:
    """A token without any probability, in a prompt, and a term that sums over prompts too."""
    loss = make_loss({"name": "orpo", "nll_over": "sequence"})
    rows = Rows(RaggedSet(loss.needs), loss.needs, engine.policy.shares_prompts)  # type: ignore[arg-type]
    everyone = [rows.data[place] for place in range(len(rows))]
    token = next(row.prompt[-1] for row in everyone if len(row.prompt) > 1)
    in_prompt = {row.id for row in everyone if token in row.prompt[1:]}
    in_response = {row.id for row in everyone if any(token in response for response in row.responses)}

    def without_token(_: object, __: object, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(-1, torch.tensor([token]), -math.inf)

    hook = engine.policy.pretrained.lm_head.register_forward_hook(without_token)
    (dealt,) = rows.sweep(1, 10**6)
    with pytest.raises(NonFiniteError) as error:
        train_step(engine, loss, rows.micro_batches(dealt, 0), step=0)
    hook.remove()
    assert set(error.value.tensors["prompt_logps"]) == in_prompt
    assert set(error.value.tensors["logps"]) == in_response
    assert in_prompt <= set(error.value.tensors["nll"]) <= in_prompt | in_response
    assert set(error.value.rows) == in_prompt | in_response < {row.id for row in everyone}


def test_dpo_starts_at_log_two_with_its_own_reference(engine: Engine) -> None:
    rows = rows_for(engine, "dpo")
    rows.set_reference(score(engine, engine, sequence_logps(rows)))
    found = evaluate(engine, make_loss({"name": "dpo"}), rows, 300, StopFlag())
    assert found["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert abs(found["rewards/margin"]) < 1e-6


def test_evaluation_is_the_same_for_any_token_budget(engine: Engine) -> None:
    rows = rows_for(engine, "orpo")
    loss = make_loss({"name": "orpo"})
    once, often = evaluate(engine, loss, rows, 10**6, StopFlag()), evaluate(engine, loss, rows, 1, StopFlag())
    assert once.keys() == often.keys()
    for name, value in once.items():
        assert often[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_a_rank_without_work_repeats_a_row_that_does_not_count(engine: Engine) -> None:
    rows = rows_for(engine, "orpo")
    from prefopt.data.plan import Cut

    dealt = Cut((((0, 1),), ((),)))
    (spare,) = rows.micro_batches(dealt, rank=1)
    assert not spare.real
    assert spare.batch.ids == (min(("row-0", "row-1"), key=lambda i: rows.costs[int(i[-1])]),)


def test_the_learning_rate_warms_up_and_decays() -> None:
    rates = learning_rates(OptimSettings(lr=1.0, schedule="cosine", warmup_ratio=0.1), 100)
    assert len(rates) == 100
    assert rates[0] == 0.0
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
    linear = learning_rates(OptimSettings(lr=2.0, schedule="linear", warmup_ratio=0.0), 4)
    assert linear == [2.0, 1.5, 1.0, 0.5]
    assert learning_rates(OptimSettings(lr=3.0, schedule="constant", warmup_ratio=0.0), 3) == [3.0] * 3
    inverse = learning_rates(OptimSettings(lr=1.0, schedule="inverse_sqrt", warmup_ratio=0.25), 16)
    assert inverse[4] == 1.0
    assert inverse[15] == pytest.approx(math.sqrt(4 / 15))


def test_rows_hand_their_reference_to_the_right_responses(engine: Engine) -> None:
    rows = rows_for(engine, "dpo")
    column = np.arange(rows.num_responses, dtype=np.float64)
    rows.set_reference(column)
    assert rows[0].reference_logps == [0.0]
    assert rows[1].reference_logps == [1.0, 2.0]
    assert replace(rows[2], reference_logps=None) == rows.data[2]
    with pytest.raises(ValueError, match="reference column"):
        rows.set_reference(column[:-1])
