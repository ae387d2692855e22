"""What is said of a run at its end."""

from __future__ import annotations

from prefopt.train.display import orders_wrongly


def test_training_that_orders_most_pairs_wrongly_says_so_and_no_other_does() -> None:
    before = {"eval/a/rewards/accuracy": 0.594, "eval/b/rewards/accuracy": 0.25, "eval/a/loss": 0.6}
    after = {"eval/a/rewards/accuracy": 0.0, "eval/b/rewards/accuracy": 0.0, "eval/a/loss": 0.1}
    (said,) = orders_wrongly(before, after)
    assert said.startswith("eval/a/rewards/accuracy was 0.594 before training and is 0.000: in most pairs")
    assert orders_wrongly(before, {**before, "eval/a/rewards/accuracy": 0.5}) == []
    assert orders_wrongly({}, after) == []  # train.eval_every=never has nothing to compare with
