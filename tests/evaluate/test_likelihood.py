"""SimPO's figure 4: hand-computed ranks and tables, and what must not change them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from prefopt.errors import UserError
from prefopt.evaluate.likelihood import accuracy, agreement, contingency, spearman, weighted_spearman
from prefopt.evaluate.measure import EvalPlace, Measured
from prefopt.evaluate.measures.likelihood import Likelihood
from prefopt.evaluate.resample import difference_figure, draws, mean_figure
from prefopt.evaluate.scored_rows import ScoredPair, ScoredResponse, read_scored_pairs
from prefopt.evaluate.settings import EvalSettings


def measure(settings: Likelihood, tmp_path: Path, resamples: int = 200) -> Measured:
    return settings(EvalPlace(EvalSettings(resamples=resamples), tmp_path, "", None, "cpu"))


def line(one: ScoredPair) -> dict:
    """A row of rows.jsonl with one pair, its rejected response first."""
    responses = [asdict(one.rejected), asdict(one.chosen)]
    about = {"id": one.row, "set": one.set, "category": one.category}
    return {**about, "responses": responses, "pairs": [[1, 0]]}


def write(path: Path, pairs: list[ScoredPair]) -> str:
    path.write_text("".join(json.dumps(line(pair)) + "\n" for pair in pairs))
    return str(path)


def pair(
    number: int, chosen: tuple[float, int, float], rejected: tuple[float, int, float], name: str = "held"
) -> ScoredPair:
    """Each response as logps, tokens, reward."""
    sides = [ScoredResponse(logps, tokens, None, reward) for logps, tokens, reward in (chosen, rejected)]
    return ScoredPair(f"f:{number}", name, None, *sides, f"f:{number}")


FOUR = [
    pair(1, (-10.0, 10, 1.0), (-30.0, 20, 0.0)),  # mean -1.0 > -1.5, sum above, reward above
    pair(2, (-40.0, 20, 1.0), (-10.0, 10, 0.0)),  # mean -2.0 < -1.0, sum below, reward above
    pair(3, (-12.0, 30, 0.0), (-10.0, 5, 1.0)),  # mean -0.4 > -2.0, sum below, reward below
    pair(4, (-50.0, 10, 0.0), (-20.0, 40, 1.0)),  # mean -5.0 < -0.5, sum below, reward below
]


def random_pairs(count: int, seed: int = 0) -> list[ScoredPair]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        sides = [(-float(rng.gamma(2.0)) * (n := int(rng.integers(1, 60))), n, float(rng.normal())) for _ in range(2)]
        made.append(pair(number, *sides))
    return made


def test_spearman_of_five_is_the_hand_computed_one() -> None:
    # Rank differences 1, 1, 1, 1, 0: rho = 1 - 6 * 4 / (5 * 24) = 0.8.
    found = spearman([1, 2, 3, 4, 5], [2.0, 1.0, 4.0, 3.0, 5.0], range(5), 100, 0)
    assert found is not None
    assert found.rho == pytest.approx(0.8)
    assert found.count == 5
    # t = rho * sqrt(3 / (1 - rho^2)) with 3 degrees of freedom.
    assert found.p == pytest.approx(2 * stats.t.sf(0.8 * math.sqrt(3 / 0.36), 3))


def test_weighted_spearman_is_that_of_the_repeated_sample() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 8, 40), rng.integers(0, 8, 40)  # with many ties
    places = [np.unique(values, return_inverse=True)[1] for values in (one, other)]
    for weights in draws(40, 20, 3):
        repeated = stats.spearmanr(np.repeat(one, weights), np.repeat(other, weights)).statistic
        assert weighted_spearman(*places, weights) == pytest.approx(repeated, abs=1e-12)


def test_spearman_is_not_changed_by_monotone_maps_and_turns_with_the_sign() -> None:
    rng = np.random.default_rng(2)
    values, lengths = rng.normal(size=50), rng.integers(1, 500, 50)
    plain = spearman(values, lengths, range(50), 100, 0)
    assert spearman(np.exp(values), np.sqrt(lengths), range(50), 100, 0) == plain
    turned = spearman(-values, lengths, range(50), 100, 0)
    assert plain is not None
    assert turned is not None
    assert (turned.rho, turned.low, turned.high) == pytest.approx((-plain.rho, -plain.high, -plain.low))


def test_spearman_of_a_constant_is_not_defined() -> None:
    assert spearman([1.0, 2.0, 3.0], [7, 7, 7], range(3), 10, 0) is None
    assert spearman([1.0, 2.0], [7, 8], range(2), 10, 0) is None


def test_interval_of_a_correlation_covers_the_truth_about_as_often_as_it_says() -> None:
    # Bivariate normal with r = 0.5 has Spearman's rho 6 / pi * asin(r / 2).
    truth, covered = 6 / math.pi * math.asin(0.25), 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=120)
        found = spearman(x, 0.5 * x + math.sqrt(0.75) * rng.normal(size=120), range(120), 200, seed)
        assert found is not None
        covered += found.low <= truth <= found.high
    assert 88 <= covered <= 100


def test_interval_of_a_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).random(300) < 0.3
    ours = mean_figure(values, 4000, 0)
    theirs = stats.bootstrap((values.astype(float),), np.mean, n_resamples=4000, method="percentile", rng=1)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)


def test_difference_of_a_statistic_with_itself_has_no_width() -> None:
    def mean(weights: np.ndarray) -> float:
        return float(weights @ np.arange(5)) / 5

    figure = difference_figure(mean, mean, 5, 50, 0)
    assert figure is not None
    assert (figure.value, figure.low, figure.high) == (0, 0, 0)


def test_contingency_counts_each_cell_and_ties_apart() -> None:
    table = contingency([1, 1, -1, -1, 0, 1], [2, -2, 2, -2, 1, 0])
    assert (table.both, table.reward_only, table.likelihood_only, table.neither, table.tied) == (1, 1, 1, 1, 2)
    shares = [row[key] for row in table.table() for key in row if key.startswith("by likelihood")]
    assert shares == [0.25] * 4


def test_ties_count_half_in_accuracy_and_not_in_agreement() -> None:
    rate, same = accuracy([1, 0, -1, 0], 10, 0), agreement([1, 0, -1, 2], [1, 1, 1, 3], 10, 0)
    assert rate is not None
    assert same is not None
    assert rate.value == 0.5
    assert (same.value, same.count) == (pytest.approx(2 / 3), 3)


def test_four_pairs_give_the_hand_computed_figures(tmp_path: Path) -> None:
    found = measure(Likelihood(rows=write(tmp_path / "rows.jsonl", FOUR)), tmp_path)
    values = {name: figure.value for name, figure in found.figures.items()}
    assert values["held/rewards/accuracy"] == 0.5
    assert values["held/mean_logps/accuracy"] == 0.5
    assert values["held/logps/accuracy"] == 0.25
    assert values["held/mean_logps/agreement"] == 0.5  # pairs 1 and 4
    assert values["held/logps/agreement"] == 0.75  # 1, 3 and 4
    assert found.tables["held/contingency/logps"] == [
        {
            "by reward": "chosen first",
            "by likelihood: chosen first": 0.25,
            "by likelihood: rejected first": 0.25,
            "pairs": 2,
        },
        {
            "by reward": "rejected first",
            "by likelihood: chosen first": 0.0,
            "by likelihood: rejected first": 0.5,
            "pairs": 2,
        },
    ]
    # Chosen: means -1, -2, -0.4, -5 with lengths 10, 20, 30, 10: ranks 3, 2, 4, 1 and 1.5, 3, 4, 1.5.
    assert values["held/mean_logps/length_spearman/chosen"] == pytest.approx(
        stats.pearsonr([3, 2, 4, 1], [1.5, 3, 4, 1.5])[0]
    )
    assert found.figures["held/mean_logps/length_spearman/both"].count == 8
    assert {row["id"] for row in found.rows} == {"f:1", "f:2", "f:3", "f:4"}


def test_order_of_rows_changes_no_value(tmp_path: Path) -> None:
    pairs = random_pairs(40)
    one = measure(Likelihood(rows=write(tmp_path / "a.jsonl", pairs)), tmp_path)
    two = measure(Likelihood(rows=write(tmp_path / "b.jsonl", pairs[::-1])), tmp_path)
    for name, figure in one.figures.items():
        assert two.figures[name].value == pytest.approx(figure.value, abs=1e-12)


def test_a_reward_that_is_the_mean_log_probability_agrees_with_it_everywhere(tmp_path: Path) -> None:
    def simpo(response: ScoredResponse) -> ScoredResponse:
        return replace(response, reward=2.5 * response.mean_logp)

    pairs = [replace(p, chosen=simpo(p.chosen), rejected=simpo(p.rejected)) for p in random_pairs(60)]
    found = measure(Likelihood(rows=write(tmp_path / "rows.jsonl", pairs)), tmp_path)
    figure = found.figures["held/mean_logps/agreement"]
    assert (figure.value, figure.low, figure.high) == (1, 1, 1)
    assert found.figures["held/rewards/accuracy"] == found.figures["held/mean_logps/accuracy"]


def test_pairs_and_sides_swapped_turn_accuracy_and_keep_agreement(tmp_path: Path) -> None:
    pairs = random_pairs(50)
    swapped = [replace(p, chosen=p.rejected, rejected=p.chosen) for p in pairs]
    one = measure(Likelihood(rows=write(tmp_path / "a.jsonl", pairs)), tmp_path).figures
    two = measure(Likelihood(rows=write(tmp_path / "b.jsonl", swapped)), tmp_path).figures
    assert two["held/rewards/accuracy"].value == pytest.approx(1 - one["held/rewards/accuracy"].value)
    assert two["held/logps/agreement"] == one["held/logps/agreement"]
    both = "held/mean_logps/length_spearman/both"
    assert two[both].value == pytest.approx(one[both].value, abs=1e-12)


def test_a_second_model_stands_beside_with_disagreements_and_paired_differences(tmp_path: Path) -> None:
    turned = [replace(p, chosen=replace(p.chosen, reward=1.0), rejected=replace(p.rejected, reward=0.0)) for p in FOUR]
    other = [*turned[1:], pair(9, (-1.0, 1, 1.0), (-2.0, 1, 0.0))]
    settings = Likelihood(rows=write(tmp_path / "a.jsonl", FOUR), against=write(tmp_path / "b.jsonl", other))
    found = measure(settings, tmp_path)
    assert found.left_out == {"only in rows, not in against": 1, "only in against, not in rows": 1}
    disagree = {row["by"]: row for row in found.tables["held/disagreement"]}
    assert disagree["rewards"]["pairs ranked otherwise"] == 2  # pairs 3 and 4 of the three that both have
    assert disagree["rewards"]["chosen first in against alone"] == 2
    assert disagree["mean_logps"]["pairs ranked otherwise"] == 0
    beside = {row["figure"]: row for row in found.tables["held/side_by_side"]}
    assert beside["rewards/accuracy"]["here"] == pytest.approx(1 / 3)
    assert beside["rewards/accuracy"]["difference"] == pytest.approx(-2 / 3)
    same = beside["mean_logps/length_spearman/both"]
    assert (same["difference"], same["low"], same["high"]) == (0, 0, 0)
    assert "held/against/contingency/mean_logps" in found.tables


def test_without_rewards_the_likelihoods_remain_and_the_missing_are_counted(tmp_path: Path) -> None:
    pairs = [replace(p, chosen=replace(p.chosen, reward=None)) for p in FOUR]
    found = measure(Likelihood(rows=write(tmp_path / "rows.jsonl", pairs)), tmp_path)
    assert found.left_out == {"no reward": 4}
    assert "held/mean_logps/length_spearman/both" in found.figures
    assert not any("rewards" in name or "agreement" in name for name in found.figures)


def test_rewards_that_are_all_equal_are_said_to_be_tied(tmp_path: Path) -> None:
    pairs = [pair(i, (-1.0 * i, i + 1, 0.0), (-2.0 * i - 1, i + 2, 0.0)) for i in range(5)]
    found = measure(Likelihood(rows=write(tmp_path / "rows.jsonl", pairs)), tmp_path)
    assert found.figures["held/rewards/accuracy"].value == 0.5
    assert not any("contingency" in name for name in found.tables)
    assert any("5 of 5 pairs have equal rewards" in note for note in found.notes)


def test_costs_of_two_runs_stand_beside(tmp_path: Path) -> None:
    for name, seconds, peak in (("dpo", 20.0, 400), ("simpo", 16.0, 300)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps({"steps": 3, "seconds": seconds}))
        start = {"world": {"device": "cpu", "num_processes": 1, "engine": "DDP"}}
        (folder / "manifest.json").write_text(json.dumps({"settings": {"loss": {"name": name}}, "starts": [start]}))
        lines = [{"step": i, "pairs_per_second": 10.0 * i, "peak_memory_bytes": peak - i} for i in (1, 2, 3)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4, "pai')
    rows = write(tmp_path / "rows.jsonl", FOUR)
    found = measure(Likelihood(rows=rows, runs=[str(tmp_path / "simpo"), str(tmp_path / "dpo")]), tmp_path)
    assert [row["loss"] for row in found.tables["runs"]] == ["simpo", "dpo"]
    assert found.figures["runs/seconds_ratio"].value == pytest.approx(0.8)
    assert found.figures["runs/peak_memory_bytes_ratio"].value == pytest.approx(299 / 399)
    assert found.tables["runs"][0]["pairs_per_second"] == 20.0
    assert found.left_out == {"line of metrics.jsonl that cannot be read": 2}


def test_a_run_that_is_not_done_is_named(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", FOUR)
    with pytest.raises(UserError, match=r"measure\.runs: .*is no run that is done"):
        measure(Likelihood(rows=rows, runs=[str(tmp_path)]), tmp_path)


def test_scored_pairs_come_back_as_they_were_written(tmp_path: Path) -> None:
    odd = replace(FOUR[0], id="a\u2028b", row="a\u2028b", category="chat", chosen=ScoredResponse(None, 3, None, 0.25))
    write(tmp_path / "rows.jsonl", [odd, *FOUR[1:]])
    assert read_scored_pairs(tmp_path / "rows.jsonl") == [odd, *FOUR[1:]]


def test_each_pair_of_a_row_has_an_id_of_its_own_and_the_note_says_so(tmp_path: Path) -> None:
    responses = [{"tokens": n, "logps": -1.5 * n, "mean_logp": -1.5, "reward": 0.5 - n} for n in (1, 2, 3)]
    row = {"id": "f:1", "set": "held", "responses": responses, "pairs": [[0, 1], [0, 2], [1, 2]]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    pairs = read_scored_pairs(tmp_path / "rows.jsonl")
    assert [pair.id for pair in pairs] == ["f:1#0>1", "f:1#0>2", "f:1#1>2"]
    assert pairs[1].rejected == ScoredResponse(-4.5, 3, None, -2.5)
    found = measure(Likelihood(rows=str(tmp_path)), tmp_path)
    assert any("some rows have several pairs" in note for note in found.notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"set": 3}, "rows.jsonl:1: set must be text; it is 3"),
        ({"responses": None}, "rows.jsonl:1: responses must be a list; it is null"),
        ({"pairs": [[0, 2]]}, "rows.jsonl:1: pairs must be two places each among 2 responses"),
        ({"responses": [{"tokens": 0}]}, "responses.0.tokens must be a whole number, 1 or more; it is 0"),
        (
            {"responses": [{"tokens": 2, "logps": float("nan")}]},
            "responses.0.logps must be a finite number or null; it is nan",
        ),
        ({"responses": [{"tokens": 2, "logps": "-3"}]}, "logps must be a finite number or null; it is a string"),
    ],
)
def test_a_row_that_is_no_pair_is_named_by_file_line_and_key(tmp_path: Path, change: dict, said: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({**line(FOUR[0]), **change}) + "\n")
    with pytest.raises(UserError) as raised:
        read_scored_pairs(tmp_path / "rows.jsonl")
    assert said in str(raised.value)


def test_a_pair_twice_and_a_file_without_rows_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "twice.jsonl", [FOUR[0], FOUR[0]])
    with pytest.raises(UserError, match=r"twice\.jsonl:2: set 'held' has the pair 'f:1' twice"):
        read_scored_pairs(tmp_path / "twice.jsonl")
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(UserError, match="has no pairs"):
        read_scored_pairs(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"measure\.rows: there is no file"):
        measure(Likelihood(rows=str(tmp_path / "missing.jsonl")), tmp_path)
