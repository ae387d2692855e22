"""Selectors: which candidates each takes, and the reason where it takes none."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import asdict
from itertools import permutations

import pytest
import yaml
from bed_select import example, prompts, select
from hypothesis import given
from hypothesis import strategies as st

from prefopt.errors import UserError
from prefopt.pairs.ranking import by_scores, tournament
from prefopt.pairs.registry import make_stage, names, stage_class, typed
from prefopt.recipe_files import packaged

PAIRING = [name for name in names("select") if stage_class("select", name).writes == "pairs"]
SMALL = {"rso": {"num_samples": 2}, "max_gap": {"min_gap": 1e-6}}


@pytest.mark.parametrize("name", PAIRING)
def test_equal_scores_are_a_reason(name: str) -> None:
    found = select(name, example([2.0, 2.0, 2.0]), **SMALL.get(name, {}))
    assert found == ((), (), "all scores are equal")


@pytest.mark.parametrize("name", PAIRING)
def test_a_single_text_is_a_reason(name: str) -> None:
    found = select(name, example([1.0, 2.0], texts=["same", "same"]), **SMALL.get(name, {}))
    assert found == ((), (), "all candidates are the same text")
    assert select(name, example([1.0])).reason == "there is only one candidate"


@pytest.mark.parametrize("name", PAIRING)
@given(
    scores=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=1, max_size=7),
    texts=st.lists(st.sampled_from(["a", "b b", "c c c"]), min_size=7, max_size=7),
    seed=st.integers(0, 5),
)
def test_chosen_is_better_and_another_text_or_there_is_a_reason(
    name: str, scores: list[float], texts: list[str], seed: int
) -> None:
    of = example(scores, texts[: len(scores)])
    found = select(name, of, seed, **SMALL.get(name, {}))
    assert bool(found.pairs) != bool(found.reason)
    for chosen, rejected in found.pairs:
        assert scores[chosen] > scores[rejected]
        assert texts[chosen] != texts[rejected]


@pytest.mark.parametrize("name", names("select"))
def test_a_prompt_gives_the_same_again_whatever_its_place(name: str) -> None:
    scores, texts = (
        [0.1, 0.9, 0.5, 0.4, 2.5, 1.0, 5.0, 0.0, 0.2],
        [f"w {'w ' * n}" for n in (3, 1, 4, 1, 5, 9, 2, 6, 8)],
    )
    one, other = (example(scores, texts, id=id) for id in ("a.jsonl:1", "b.jsonl:9"))
    assert select(name, one) == select(name, other)


@pytest.mark.parametrize("name", names("select"))
def test_recipe_states_the_settings_and_their_defaults(name: str) -> None:
    stated = yaml.safe_load((packaged() / "pairs" / "select" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert stated == typed("select", {"name": name}) == {"name": name, **asdict(make_stage("select", {"name": name}))}


def test_best_vs_worst_takes_the_ends_and_the_first_of_equals() -> None:
    assert select("best_vs_worst", example([1.0, 3.0, 0.0, 3.0, 0.0])).pairs == ((1, 2),)


def test_best_vs_worst_passes_over_an_equal_text_that_was_scored_otherwise() -> None:
    of = example([3.0, 2.0, 0.0], texts=["same", "other", "same"])
    assert select("best_vs_worst", of).pairs == ((0, 1),)


def test_best_vs_random_draws_each_of_the_others_alike() -> None:
    count = Counter(select("best_vs_random", example([0.0, 5.0, 1.0, 2.0], prompt=p)).pairs for p in prompts(3000))
    assert {pair for ((pair),) in count} == {(1, 0), (1, 2), (1, 3)}
    assert all(abs(n - 1000) < 4 * (3000 * (1 / 3) * (2 / 3)) ** 0.5 for n in count.values())


def test_best_vs_random_never_rejects_an_equally_good_one() -> None:
    found = {select("best_vs_random", example([5.0, 5.0, 1.0]), seed).pairs for seed in range(50)}
    assert found == {((0, 2),)}


def test_all_pairs_are_all_that_differ() -> None:
    assert select("all_pairs", example([1.0, 2.0, 2.0])).pairs == ((1, 0), (2, 0))


def test_adjacent_pairs_neighbouring_scores() -> None:
    assert select("adjacent", example([1.0, 3.0, 2.0, 3.0])).pairs == ((1, 2), (2, 0))


def test_max_gap_takes_the_widest_gap_from_min_gap_on() -> None:
    assert select("max_gap", example([0.1, 0.3]), min_gap=0.2).pairs == ((1, 0),)
    assert select("max_gap", example([0.1, 0.3]), min_gap=0.21).reason == "the widest gap is below min_gap"


def test_first_round_of_an_odd_number_leaves_the_last_out() -> None:
    assert select("first_round", example([1.0, 2.0, 4.0, 3.0, 9.0]), order="given").pairs == ((1, 0), (2, 3))


def test_tournament_makes_one_pair_fewer_than_candidates() -> None:
    found = select("tournament", example([1.0, 2.0, 4.0, 3.0, 9.0]), order="given").pairs
    assert found == ((1, 0), (2, 3), (2, 1), (4, 2))


def test_a_pairwise_judge_decides_where_one_spoke() -> None:
    wins = [[0.5, 0.9], [0.1, 0.5]]
    for name in ("first_round", "tournament", "rso"):
        assert select(name, example([0.0, 1.0], wins=wins), **SMALL.get(name, {})).pairs == ((0, 1),)


def test_a_cycle_of_wins_with_equal_scores_still_makes_pairs() -> None:
    wins = [[0.5, 0.8, 0.2], [0.2, 0.5, 0.8], [0.8, 0.2, 0.5]]
    assert select("tournament", example([0.5] * 3, wins=wins), order="given").pairs == ((0, 1), (2, 0))


def test_a_judge_that_never_decides_leaves_equal_scores() -> None:
    wins = [[0.5, 0.5], [0.5, 0.5]]
    assert select("tournament", example([0.5, 0.5], wins=wins)).reason == "all scores are equal"


def test_those_that_met_and_tied_are_a_reason() -> None:
    found = select("first_round", example([1.0, 1.0, 2.0]), order="given")
    assert found.reason == "those that met are equal in text or in score"


def test_pointwise_draws_no_pair_twice() -> None:
    found = select("pointwise", example([float(s) for s in range(8)]), num_pairs=20).pairs
    assert len(found) == len(set(found)) == 20
    assert len(select("pointwise", example([0.0, 1.0, 2.0]), num_pairs=20).pairs) == 3


def test_rso_takes_no_more_and_no_fewer_than_num_samples() -> None:
    drawn = random.Random(3)
    scores = [drawn.gauss(0, 1) for _ in range(64)]
    for seed in range(20):
        ranked = select("rso", example(scores), seed, num_samples=8, ranking="tournament").pairs
        assert len(ranked) == 7
        assert len({place for pair in ranked for place in pair}) == 8
        assert len(select("rso", example(scores), seed, num_samples=8).pairs) == 4
    assert select("rso", example(scores[:7]), num_samples=8).reason == "fewer candidates than num_samples"


def test_rso_with_beta_zero_pairs_the_best() -> None:
    found = select("rso", example([0.0, 4.0, 3.0, 2.0, 1.0]), num_samples=2, beta=0.0)
    assert found.pairs == ((1, 2),)


def test_rso_keeps_duplicates_unless_told_and_never_pairs_them() -> None:
    of = example([1.0, 1.0, 1.0, 0.9], texts=["a", "a", "a", "b"])
    found = select("rso", of, num_samples=4, ranking="tournament")
    assert set(found.pairs) <= {(0, 3), (1, 3), (2, 3)}
    assert len(found.pairs) == 1
    assert select("rso", of, num_samples=4, duplicates="drop").reason == "fewer candidates than num_samples"
    assert select("rso", of, num_samples=2, duplicates="drop").pairs == ((0, 3),)


def test_keep_all_ranks_every_text_once() -> None:
    of = example([1.0, 3.0, 2.0, 3.0], texts=["a", "b", "c", "b"])
    assert select("keep_all", of) == ((), (1, 2, 0), "")
    assert select("keep_all", example([1.0, 1.0])).reason == "all scores are equal"


def test_top_k_takes_the_best_and_a_lone_candidate() -> None:
    assert select("top_k", example([1.0, 3.0, 2.0]), k=2).kept == (1, 2)
    assert select("top_k", example([1.0]), k=1).kept == (0,)
    assert select("top_k", example([1.0, 1.0]), k=2).kept == (0, 1)
    assert select("top_k", example([1.0, 1.0, 1.0]), k=2).reason == "all scores are equal"


def test_above_takes_what_exceeds_the_threshold() -> None:
    of = example([4.5, 5.0, 4.6, 5.0], texts=["a", "b", "c", "b"])
    assert select("above", of).kept == (1, 2)
    assert select("above", of, threshold=5.0).reason == "no score is above the threshold"
    assert select("above", example([5.0])).kept == (0,)


def longer_chosen(settings: dict[str, object], count: int = 4000) -> tuple[int, int, int]:
    """Of prompts whose better answers are mostly longer: pairs with the longer chosen, with the shorter, and none."""
    drawn = random.Random(11)
    longer = shorter = none = 0
    for prompt in prompts(count):
        lengths = drawn.sample(range(5, 60), 4)
        scores = [length / 20 + drawn.gauss(0, 1) for length in lengths]
        found = select("length_balanced", example(scores, ["w " * n for n in lengths], prompt=prompt), **settings)
        none += not found.pairs
        for chosen, rejected in found.pairs:
            longer += lengths[chosen] > lengths[rejected]
            shorter += lengths[chosen] < lengths[rejected]
    return longer, shorter, none


def test_length_balanced_chooses_the_longer_half_of_the_time_where_length_is_liked() -> None:
    longer, shorter, none = longer_chosen({})
    assert abs(longer - shorter) < 4 * (longer + shorter) ** 0.5
    assert none > 0
    assert longer + shorter + none == 4000


def test_length_balanced_that_keeps_one_sided_prompts_loses_none() -> None:
    longer, shorter, none = longer_chosen({"one_sided": "keep"})
    assert none == 0
    assert longer > shorter


def test_length_balanced_says_which_side_is_always_better() -> None:
    texts = ["w", "w w"]
    assert select("length_balanced", example([0.0, 1.0], texts)).reason == "the better answer is always the longer"
    assert select("length_balanced", example([1.0, 0.0], texts)).reason == "the better answer is always the shorter"


def test_length_balanced_takes_equal_lengths_of_one_sided_prompts() -> None:
    of = example([0.0, 1.0, 3.0], ["a a", "b b", "c c c"])
    assert {select("length_balanced", of, seed).pairs for seed in range(20)} == {((1, 0),)}


def test_length_balanced_keeps_to_max_ratio() -> None:
    texts = ["w " * 10, "w " * 11, "w " * 30]
    found = select("length_balanced", example([0.0, 1.0, 9.0], texts), one_sided="keep", max_ratio=1.1)
    assert found.pairs == ((1, 0),)
    far = example([0.0, 9.0], [texts[0], texts[2]])
    assert select("length_balanced", far, max_ratio=1.1).reason == "no pair within max_ratio"


def test_characters_tell_lengths_where_words_do_not() -> None:
    of = example([0.0, 1.0], ["天空是蓝色", "天空"])
    assert select("length_balanced", of).pairs == ((1, 0),)
    assert select("length_balanced", of, unit="characters").reason == "the better answer is always the shorter"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("max_gap", {"min_gap": 0.0}, "min_gap must be above 0, not 0.0"),
        ("pointwise", {"num_pairs": 0}, "num_pairs must be 1 or more, not 0"),
        ("rso", {"num_samples": 1}, "num_samples must be 2 or more to make a pair, not 1"),
        ("rso", {"beta": -1.0}, "beta must be 0 or more, not -1.0"),
        ("top_k", {"k": 0}, "k must be 1 or more, not 0"),
        ("length_balanced", {"max_ratio": 0.5}, "max_ratio must be 1 or more, or null, not 0.5"),
        ("tournament", {"order": "random"}, "select.order: must be one of drawn, given, not 'random'"),
        ("rso", {"duplicates": "merge"}, "select.duplicates: must be one of keep, drop, not 'merge'"),
    ],
)
def test_a_setting_out_of_range_is_named(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_stage("select", {"name": name, **settings})


def test_every_order_of_a_tournament_has_the_same_best_and_as_many_pairs() -> None:
    scores = [0.0, 3.0, 1.0, 2.0, 5.0]
    for order in permutations(range(5)):
        played = tournament(order, by_scores(scores))
        assert (played.best, len(played.pairs)) == (4, 4)
