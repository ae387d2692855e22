"""Methods that couple the rows of a batch: one number for the whole step, and for the whole set in an evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ragged import make_engine, ragged_rows, settings

from prefopt.losses import make_loss
from prefopt.model.forward import respond
from prefopt.train.couple import observe
from prefopt.train.engine import Engine
from prefopt.train.evaluate import evaluate
from prefopt.train.rows import Rows
from prefopt.train.signals import StopFlag

COUPLED: list[dict[str, Any]] = [
    {"name": "kto"},
    {"name": "aot"},
    {"name": "aot", "variant": "unpaired"},
    {"name": "bco_pair"},
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return make_engine(settings("one"))


def rows_for(engine: Engine, values: dict[str, Any]) -> Rows:
    return ragged_rows(make_loss(values).needs, engine.policy.shares_prompts)


@pytest.mark.parametrize("values", COUPLED, ids=str)
def test_an_evaluation_does_not_depend_on_the_token_budget(engine: Engine, values: dict[str, Any]) -> None:
    loss, rows = make_loss(values), rows_for(engine, values)
    whole = evaluate(engine, loss, rows, 10**6, StopFlag())
    for tokens in (60, 300):
        found = evaluate(engine, loss, rows, tokens, StopFlag())
        assert found.keys() == whole.keys()
        for name, value in whole.items():
            assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name


def test_kl_is_the_mean_over_all_responses_to_other_prompts(engine: Engine) -> None:
    rows = rows_for(engine, {"name": "kto"})
    assert rows.baseline is not None
    with torch.no_grad():
        each = [respond(engine, rows.baseline.pack([place])).logratios for place in range(len(rows.baseline))]
    found = evaluate(engine, make_loss({"name": "kto"}), rows, 100, StopFlag())["kl"]
    assert found == pytest.approx(torch.cat(each).mean().item(), rel=1e-6)


def test_kl_is_zero_at_the_reference_and_has_no_sign_until_the_loss_cuts_it(engine: Engine) -> None:
    rows = rows_for(engine, {"name": "kto"})
    assert rows.baseline is not None
    (dealt,) = rows.baseline.sweep(1, 10**6)
    with torch.no_grad():
        (own,) = [respond(engine, m.batch).logps for m in rows.baseline.micro_batches(dealt, 0)]
    order = np.argsort([place for share in dealt.micro_batches[0] for place in share])
    assert len(order) == len(rows)
    for shift in (0.0, 4.0):
        columns = torch.split(own, [len(rows.baseline[p].responses) for p in dealt.micro_batches[0][0]])
        rows.baseline.set_reference(torch.cat([columns[place] for place in order]).numpy() + shift)
        found = evaluate(engine, make_loss({"name": "kto"}), rows, 100, StopFlag())
        assert found["kl"] == pytest.approx(-shift, abs=1e-4)


def test_what_is_observed_is_kept_in_the_order_of_the_micro_batches(engine: Engine) -> None:
    loss, rows = make_loss({"name": "bco_pair"}), rows_for(engine, {"name": "bco_pair"})
    (dealt,) = rows.sweep(1, 100)
    micro_batches = rows.micro_batches(dealt, 0)
    coupling = observe(engine, loss, micro_batches, ())
    with torch.no_grad():
        for number, micro_batch in enumerate(micro_batches):
            responses = coupling.inform(respond(engine, micro_batch.batch), number)
            assert responses.whole_step is not None
            own = responses.whole_step.values[responses.whole_step.own]
            torch.testing.assert_close(own, loss.observe(responses))  # type: ignore[attr-defined]
    assert len(responses.whole_step.values) == sum(len(rows[place].pairs) for place in range(len(rows)))


def test_observing_leaves_the_mode_of_the_model_as_it_was(engine: Engine) -> None:
    for training in (True, False):
        engine.module.train(training)
        rows = rows_for(engine, {"name": "aot"})
        (dealt,) = rows.sweep(1, 10**6)
        observe(engine, make_loss({"name": "aot"}), rows.micro_batches(dealt, 0), ())
        assert engine.module.training is training


def test_a_method_that_couples_nothing_costs_no_pass(engine: Engine) -> None:
    rows = rows_for(engine, {"name": "dpo"})
    (dealt,) = rows.sweep(1, 10**6)
    calls = []
    hook = engine.policy.register_forward_hook(lambda *_: calls.append(1))
    observe(engine, make_loss({"name": "dpo"}), rows.micro_batches(dealt, 0), ())
    hook.remove()
    assert calls == []
