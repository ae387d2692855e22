"""Settings of the data that the method has no use for, or that say too little, are refused before a file is opened."""

from __future__ import annotations

from typing import Any

import pytest

from prefopt.checks import check, check_margins, check_pairs
from prefopt.config import compose
from prefopt.errors import UserError
from prefopt.fill import SettingsError, from_mapping
from prefopt.settings import DataSettings, MarginSettings, RunSettings


def run(**data: Any) -> RunSettings:
    return RunSettings(data=DataSettings(**data), loss={"name": "some"})


@pytest.mark.parametrize("needs", [set(), {"ranking"}, {"reference", "ranking"}])
@pytest.mark.parametrize(("key", "value"), [("pairs", "all"), ("pairs", "random"), ("min_score_gap", 0.5)])
def test_a_selection_without_effect_is_refused(needs, key, value):
    with pytest.raises(UserError, match=f"data.{key}={value} has no effect: loss=some learns from no pairs"):
        check_pairs(run(**{key: value}), frozenset(needs))
    for used in ("pairs", "labels"):
        check_pairs(run(**{key: value}), frozenset({*needs, used}))
    check_pairs(run(), frozenset(needs))


def test_a_negative_gap_is_refused():
    with pytest.raises(UserError, match=r"data\.min_score_gap must be 0 or more, not -1"):
        check_pairs(run(min_score_gap=-1.0), frozenset({"pairs"}))


def test_margins_that_the_method_does_not_weigh_are_refused():
    with pytest.raises(UserError, match=r"data\.margins has no effect: loss=some"):
        check_margins(run(margins=[MarginSettings("length")]), frozenset({"pairs"}))


@pytest.mark.parametrize(
    ("margin", "complaint"),
    [
        ({"kind": "column"}, "name is not set"),
        ({"kind": "column", "name": ""}, "name is not set"),
        ({"kind": "column", "name": "x", "path": "y"}, "path has no effect: kind column takes no path"),
        ({"kind": "column", "name": "x", "beta": 0.2}, "beta has no effect: kind column takes no beta"),
        ({"kind": "length", "name": "x"}, "name has no effect: kind length takes no name"),
        ({"kind": "length", "path": "x"}, "path has no effect: kind length takes no path"),
        ({"kind": "length", "beta": 1}, "beta has no effect: kind length takes no beta"),
        ({"kind": "implicit"}, "path is not set"),
        ({"kind": "implicit", "path": "o/m", "name": "x"}, "name has no effect: kind implicit takes no name"),
        ({"kind": "implicit", "path": "o/m", "beta": 0}, "beta must be above 0, not 0"),
        ({"kind": "implicit", "path": "./nowhere"}, "./nowhere"),
        ({"kind": "reward"}, "path is not set"),
        ({"kind": "reward", "path": "o/m", "beta": 0.5}, "beta has no effect: kind reward takes no beta"),
        ({"kind": "reward", "path": "o/m", "name": "x"}, "name has no effect: kind reward takes no name"),
    ],
)
def test_a_margin_says_what_its_kind_needs_and_no_more(margin, complaint):
    settings = [MarginSettings("length"), from_mapping(MarginSettings, margin)]
    with pytest.raises(UserError, match=r"data\.margins\.1") as error:
        check_margins(run(margins=settings), frozenset({"margins"}))
    assert complaint in error.value.message


def test_whole_margins_pass():
    margins = [
        *(MarginSettings(name="x"), MarginSettings("length"), MarginSettings("reward", path="o/m")),
        *(MarginSettings("implicit", path="o/m"), MarginSettings("implicit", path="o/m", beta=0.5)),
    ]
    check_margins(run(margins=margins), frozenset({"margins"}))
    check_margins(run(), frozenset({"margins"}))
    check_margins(run(), frozenset({"pairs"}))


def test_margins_are_said_in_yaml_and_of_four_kinds():
    data = compose(["data.margins=[{kind: length}, {name: x}, {kind: implicit, path: o/m, beta: 1}]"]).data
    wanted = [MarginSettings("length"), MarginSettings("column", "x"), MarginSettings("implicit", None, "o/m", 1.0)]
    assert data.margins == wanted
    with pytest.raises(SettingsError, match="must be one of column, length, implicit, reward"):
        from_mapping(DataSettings, {"margins": [{"kind": "size"}]})


def test_a_selection_is_one_of_four():
    with pytest.raises(UserError, match="must be one of best_vs_worst, all, adjacent, random"):
        compose(["data.pairs=best"])


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("data.pairs=random", r"data\.pairs=random has no effect: loss=sft"),
        ("data.min_score_gap=1", r"data\.min_score_gap=1\.0 has no effect: loss=sft"),
        ("data.margins=[{kind: length}]", r"data\.margins has no effect: loss=sft"),
    ],
)
def test_a_whole_run_is_refused(override, complaint):
    with pytest.raises(UserError, match=complaint):
        check(compose(["recipe=quickstart", "loss=sft", override]))
    check(compose(["recipe=quickstart", "loss=sft"]))
