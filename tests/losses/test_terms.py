"""A loss that is written wrong ends with a sentence that names it and the rule."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bed import counts, two

from prefopt import losses
from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.errors import RunError, UserError
from prefopt.losses.terms import check_trains, terms


class Own:
    """A method whose call is the function that it is given."""

    needs = frozenset({"pairs"})

    def __init__(self, call: Callable[[Responses], Any]) -> None:
        self._call = call

    def __call__(self, responses: Responses) -> Any:
        return self._call(responses)


def responses() -> Responses:
    made = two([-1.0, -2.0], [-3.0], (0.0, 0.0))
    made.logps.requires_grad_()
    return made


def output(responses: Responses, values: torch.Tensor, unit: Unit = Unit.PAIR, rewards: Any = None) -> LossOutput:
    rewards = responses.logps.detach() if rewards is None else rewards
    return LossOutput((Component("own", values, unit),), rewards)


def margin(r: Responses) -> torch.Tensor:
    chosen, rejected = r.paired(r.logps)
    return chosen - rejected


WRONG = {
    "gave a Tensor, not a LossOutput": margin,
    "gave no component": lambda r: LossOutput((), r.logps.detach()),
    r"component 'own' has shape \(\), expected \(1,\), one value per pair": lambda r: output(r, margin(r).mean()),
    r"component 'own' has shape \(1, 1\), expected \(1,\), one value per pair": lambda r: output(r, margin(r)[:, None]),
    r"shape \(1,\), expected \(2,\), one value per response": lambda r: output(r, margin(r), Unit.RESPONSE),
    r"shape \(1, 1\), expected one dimension, one value per token": lambda r: output(r, margin(r)[None], Unit.TOKEN),
    r"rewards have shape \(1,\), expected \(2,\)": lambda r: output(r, margin(r), rewards=margin(r).detach()),
    "rewards carry a gradient": lambda r: output(r, margin(r), rewards=r.logps),
}


@pytest.mark.parametrize("said", sorted(WRONG))
def test_what_a_loss_gives_is_checked_and_the_rule_is_named(said: str) -> None:
    with pytest.raises(RunError, match=said) as caught:
        terms(Own(WRONG[said]), responses())
    assert "loss=test_terms" in caught.value.message


def test_an_evaluation_needs_no_gradient_and_a_step_does() -> None:
    own, made = Own(lambda r: output(r, margin(r).detach())), responses()
    given = terms(own, made)
    assert given.components[0].values.tolist() == [0.0]
    with pytest.raises(RunError, match="no component has a gradient"):
        check_trains(own, given, counts(made))


def test_a_step_without_anything_to_count_is_refused() -> None:
    made = responses()
    own = Own(lambda r: output(r, margin(r)))
    given = terms(own, made)
    check_trains(own, given, counts(made))
    with pytest.raises(RunError, match=r"nothing of what its components count \(pair\)"):
        check_trains(own, given, dict.fromkeys(Unit, 0))


def test_the_hint_says_what_to_write_where_a_gradient_is_missing_or_too_much() -> None:
    made = responses()
    with pytest.raises(RunError) as caught:
        terms(Own(WRONG["rewards carry a gradient"]), made)
    assert "write LossOutput(components, rewards.detach())" in caught.value.hint
    own = Own(lambda r: output(r, margin(r).detach()))
    with pytest.raises(RunError) as caught:
        check_trains(own, terms(own, made), counts(made))
    assert "compute the values from responses.logps, mean_logps or token_logps as they are" in caught.value.hint


def test_a_need_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses.loss_class("simpo"), "needs", frozenset({"pairs", "refrence"}))
    with pytest.raises(UserError, match="'refrence'") as caught:
        losses.make_loss({"name": "simpo"})
    assert "'reference'" in caught.value.hint


def test_a_method_in_a_clone_that_does_not_run_is_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prefopt" / "losses").mkdir(parents=True)
    (tmp_path / "prefopt" / "losses" / "square.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no method 'square'") as caught:
        losses.loss_class("square")
    assert "pip install -e ." in caught.value.hint
