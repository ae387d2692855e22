"""What a method asks for beside pairs: scores, labels of every origin, the response to imitate, margins."""

from __future__ import annotations

from typing import Any

import pytest

from prefopt.data.dataset import DropError, Prepared, prepare
from prefopt.errors import UserError
from prefopt.settings import DataSettings, MarginSettings, SourceSettings

TRL = {"prompt": "a", "chosen": " one", "rejected": " two"}
SCORED = {**TRL, "score_chosen": 0.9, "score_rejected": 0.25}
RANKED = {"prompt": "a", "responses": [" one", " two", " three"], "scores": [0.5, 0.75, 0.0]}
LABELLED = {"prompt": "a", "completion": " one", "label": True}
SFT = {"prompt": "a", "completion": " one"}
RECORD = {"prompt": [{"role": "user", "content": "a"}], "is_chat": False}
CONVERSATION = [{"role": "user", "content": "a"}]


def record(*candidates: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**RECORD, "candidates": list(candidates), **more}


@pytest.fixture
def made(no_bos, jsonl, tmp_path):
    """Prepares rows for a method with these needs (words in one string)."""

    def make(needs: str, *rows: dict[str, Any], format: str = "auto", **settings: Any) -> Prepared:
        source = SourceSettings(jsonl(list(rows)), format=format)
        data = DataSettings(train=[source], **{"max_drop_fraction": 1.0, **settings})
        return prepare(data, no_bos, frozenset(needs.split()), tmp_path / "cache")

    return make


def said(prepared: Prepared) -> str:
    return "; ".join(prepared.report["sources"][0]["conversions"])


# Scores


def test_scores_are_carried_where_a_method_asks_for_them(made):
    assert made("pairs", SCORED).train[0].scores is None
    assert made("pairs scores", SCORED).train[0].scores == [0.9, 0.25]
    assert made("pairs probabilities", SCORED).train[0].scores == [0.9, 0.25]
    assert made("ranking", RANKED).train[0].scores == [0.5, 0.75, 0.0]
    assert made("pairs scores", RANKED).train[0].scores == [0.75, 0.0]  # of the two that are kept
    assert made("labels scores", {**LABELLED, "score": "0.5"}).train[0].scores == [0.5]
    assert made("ranking", TRL).train[0].scores == [1.0, 0.0]


def test_a_ranking_of_pairs_is_scored_and_says_so(made):
    assert "chosen responses are given 1, rejected ones 0" in said(made("ranking", TRL))
    assert "scores" not in said(made("ranking", SCORED))
    by_rank = {"prompt": "a", "responses": [" b", " c"], "rank": [1, 0]}
    prepared = made("ranking", by_rank)
    assert prepared.train[0].scores == [-1.0, 0.0]
    assert "ranks become scores" in said(prepared)


def test_scores_that_only_order_are_named(made):
    assert "scores only say which response is preferred: by how much is not used" in said(made("pairs", SCORED))
    assert "whether they differ by 0.5" in said(made("pairs", SCORED, min_score_gap=0.5))
    assert said(made("pairs", TRL)) == ""
    assert "scores only" not in said(made("pairs scores", SCORED))


@pytest.mark.parametrize("need", ["scores", "probabilities"])
@pytest.mark.parametrize(
    ("row", "name"),
    [
        (TRL, "trl"),
        ({**TRL, "score_chosen": 1}, "trl"),
        ({**TRL, "score_chosen": None, "score_rejected": None}, "trl"),
        ({"prompt": "a", "responses": [" b", " c"], "rank": [1, 0]}, "ranked"),
        (record({"text": " b"}, {"text": " c"}), "examples"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}, "hh"),
    ],
)
def test_a_file_without_scores_is_refused_before_it_is_tokenised(made, tmp_path, need, row, name):
    with pytest.raises(UserError, match=f"the method needs {need}, which these rows of format {name} do not") as error:
        made(f"pairs {need}", row)
    assert "columns score_chosen and score_rejected" in error.value.hint
    assert not (tmp_path / "cache").exists()


def test_a_score_that_is_no_probability_leaves_its_row_out(made):
    rows = [SCORED, {**SCORED, "score_chosen": 1.5}, {**SCORED, "score_rejected": -0.5}, {**SCORED, "score_chosen": 1}]
    prepared = made("pairs probabilities", *rows)
    assert [e.scores for e in prepared.train] == [[0.9, 0.25], [1.0, 0.25]]
    assert prepared.report["total"]["dropped"] == {"score is no probability": {"count": 2, "rows": [2, 3]}}
    assert prepared.left_out[0]["detail"] == "1.5 is not in [0, 1]"
    with_a_third = {**RANKED, "scores": [0.5, 0.75, 2.0]}
    assert made("pairs probabilities", RANKED, with_a_third).report["total"]["kept"] == 1


def test_a_row_without_the_score_of_its_file_is_left_out(made):
    prepared = made("labels scores", {**LABELLED, "score": 0.5}, {**LABELLED, "score": None}, LABELLED)
    assert prepared.report["total"]["dropped"]["missing score"]["count"] == 2


# Labels


def test_labels_of_the_file_are_counted(made):
    prepared = made("labels", LABELLED, {**LABELLED, "label": False}, LABELLED)
    assert [e.labels for e in prepared.train] == [[True], [False], [True]]
    assert prepared.report["sources"][0]["labels"] == {"desirable": 2, "undesirable": 1}
    assert said(prepared) == ""
    assert "labels" not in made("pairs", TRL).report["sources"][0]


def test_a_pair_is_a_desirable_and_an_undesirable_response_and_says_so(made):
    for needs in ("labels", "labels demonstrations"):
        prepared = made(needs, {"prompt": "a", "responses": [" b", " c"], "scores": [0, 1]}, RANKED)
        assert [e.labels for e in prepared.train] == [[False, True], [True, False]]
        assert prepared.report["total"]["labels"] == {"desirable": 2, "undesirable": 2}
        assert "2 rows have no labels: chosen responses are labelled desirable" in said(prepared)
        assert "1 rankings of more than two responses become pairs: the best and the worst" in said(prepared)
        assert "1 responses are in no pair (best_vs_worst) and are not used" in said(prepared)


def test_demonstrations_are_desirable_where_the_method_takes_them(made):
    with pytest.raises(UserError, match="needs labels, which these rows of format sft do not have"):
        made("labels", SFT)
    prepared = made("labels demonstrations", SFT, {"prompt": "b", "completion": " two"})
    assert [e.labels for e in prepared.train] == [[True], [True]]
    assert said(prepared) == "2 rows without a label count as desirable"
    assert prepared.report["total"]["labels"] == {"desirable": 2, "undesirable": 0}


def test_rows_of_a_labelled_file_may_lack_the_label(made):
    rows = [LABELLED, {**LABELLED, "label": False}, {**LABELLED, "label": None}, SFT]
    prepared = made("labels demonstrations", *rows)
    assert [e.labels for e in prepared.train] == [[True], [False], [True], [True]]
    assert said(prepared) == "2 rows without a label count as desirable"
    for needs in ("labels", ""):  # imitation too: nobody knows whether they should be imitated
        dropped = made(needs, *rows).report["total"]["dropped"]
        assert dropped["missing label"] == {"count": 2, "rows": [3, 4]}


def test_demonstrations_of_our_own_records(made):
    rows = [record({"text": " b"}), record({"text": " b", "label": False}), record({"text": " b", "score": 0.2})]
    prepared = made("labels demonstrations", *rows)
    assert [e.labels for e in prepared.train] == [[True], [False], [True]]
    dropped = made("labels", *rows).report["total"]["dropped"]
    assert dropped == {"no label": {"count": 2, "rows": [1, 3]}}


def test_a_score_alone_is_a_label_too(made):
    rows = [{**SFT, "score": 1}, {**SFT, "score": 0.75}, {**SFT, "score": "1.0"}]
    for needs, scores in (("labels scores", [[1.0], [0.75], [1.0]]), ("labels", [None] * 3)):
        prepared = made(needs, *rows)
        assert [e.labels for e in prepared.train] == [[True], [False], [True]]
        assert [e.scores for e in prepared.train] == scores
        assert said(prepared) == "3 rows are labelled by their scores: 1 is desirable, any other number is not"


def test_alpaca_rows_have_scores_too(made, chat):
    del chat
    row = {"instruction": "a", "output": "b", "score": 0.5}
    assert made("labels scores", row, chat_template="hh").train[0].labels == [False]


def test_a_ranking_keeps_its_scores_beside_the_labels_that_its_pairs_give(made):
    (example,) = made("labels scores", RANKED).train
    assert (example.labels, example.scores) == ([True, False], [0.75, 0.0])


def test_a_row_with_neither_label_nor_score_is_left_out_or_a_demonstration(made):
    rows = [{**SFT, "score": 0.5}, {**SFT, "score": None}]
    assert made("labels", *rows).report["total"]["dropped"]["no label"] == {"count": 1, "rows": [2]}
    assert [e.labels for e in made("labels demonstrations", *rows).train] == [[False], [True]]


def test_a_label_or_score_that_only_a_late_row_has_is_not_overlooked(made):
    rows = [{**SFT, "prompt": str(n)} for n in range(70)]  # more than are looked at to recognise the format
    late = [{**LABELLED, "label": False}, {**SFT, "score": 0}]
    prepared = made("labels demonstrations", *rows, *late)
    assert prepared.report["total"]["labels"] == {"desirable": 70, "undesirable": 2}
    assert "70 rows without a label count as desirable" in said(prepared)
    assert "1 rows are labelled by their scores" in said(prepared)


def test_columns_that_nobody_asks_for_may_hold_anything(made):
    odd = {"score": "high", "y_ref": 5, "margin": "wide", "target": [3]}
    assert made("", {**SFT, **odd}).report["total"]["kept"] == 1
    assert made("labels", {**LABELLED, **odd}).report["total"]["kept"] == 1
    prepared = made("pairs reference", {**TRL, **odd})
    assert prepared.report["total"]["kept"] == 1
    assert prepared.report["sources"][0]["columns_unused"] == ["margin", "score", "target", "y_ref"]


# Targets


@pytest.mark.parametrize(
    ("row", "y_ref"),
    [
        (TRL, " blue"),
        (RANKED, " blue"),
        ({**TRL, "prompt": "a"}, {"role": "assistant", "content": " blue"}),
        (TRL, [{"from": "gpt", "value": " blue"}]),
    ],
)
def test_the_response_to_imitate_stands_behind_the_others(made, row, y_ref):
    prepared = made("pairs targets", {**row, "y_ref": y_ref})
    (example,) = prepared.train
    assert (example.target, len(example.responses)) == (2, 3)
    assert len(example.pairs) == 1
    assert 2 not in example.pairs[0]
    assert example.best != 2
    assert "1 responses to imitate are added" in said(prepared)
    assert prepared.report["sources"][0]["columns_unused"] == []


def test_the_response_to_imitate_may_be_one_of_the_row(made):
    prepared = made("pairs targets", {**TRL, "y_ref": " one"}, {**TRL, "y_ref": " two"}, {**TRL, "y_ref": " one."})
    assert [(e.target, len(e.responses)) for e in prepared.train] == [(0, 2), (1, 2), (2, 3)]
    assert "1 responses to imitate are added to their rows, in no pair and without a score; 2 are" in said(prepared)


def test_a_response_of_the_row_that_is_not_kept_is_added(made):
    (example,) = made("pairs targets", {**RANKED, "y_ref": " one"}).train  # the middle one
    assert (example.target, len(example.responses)) == (2, 3)
    (example,) = made("ranking targets", {**RANKED, "y_ref": " one"}).train
    assert (example.target, len(example.responses)) == (0, 3)


def test_an_added_response_has_no_score_and_no_margins(made):
    row = {**RANKED, "y_ref": " blue", "helpful": [1, 2, 3]}
    margins = [MarginSettings(name="helpful")]
    (example,) = made("ranking targets margins", row, margins=margins).train
    assert example.scores == [0.5, 0.75, 0.0, 0.0]
    assert example.margins == [[1.0], [2.0], [3.0], [0.0]]


def test_targets_of_conversations_and_of_our_own_records(made, chat, jsonl, tmp_path):
    row = {"prompt": CONVERSATION, "chosen": "b", "rejected": "c", "y_ref": "d"}
    hh = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c", "y_ref": "d"}
    own = record({"text": "b", "score": 1}, {"text": "c", "score": 0}, target="d", is_chat=True)
    sharegpt = {"conversations": [{"from": "human", "value": "a"}], "chosen": "b", "rejected": "c", "y_ref": "d"}
    row["chosen"], row["rejected"] = ([{"role": "assistant", "content": text}] for text in "bc")
    for value in (row, hh, own, sharegpt):
        (example,) = made("pairs targets", value, chat_template="hh").train
        assert (example.target, len(example.responses)) == (2, 3)
        assert len(set(map(tuple, example.responses))) == 3


@pytest.mark.parametrize(
    ("row", "format"),
    [(TRL, "trl"), ({**TRL, "y_ref": None}, "trl"), (RANKED, "ranked"), ({**SFT, "y_ref": " b"}, "sft"),
     (record({"text": " b"}, y_ref=" c", target=None), "examples")],
)  # fmt: skip
def test_a_file_without_a_response_to_imitate_is_refused(made, row, format):
    needs = "targets" if format == "sft" else "pairs targets"
    with pytest.raises(UserError, match=f"needs targets, which these rows of format {format} do not have") as error:
        made(needs, row)
    assert "a column y_ref" in error.value.hint


@pytest.mark.parametrize(("y_ref", "reason"), [(None, "missing y_ref"), ("  ", "empty response"), (5, "y_ref is")])
def test_a_row_without_a_response_to_imitate_is_left_out(made, y_ref, reason):
    prepared = made("pairs targets", {**TRL, "y_ref": " b"}, {**TRL, "y_ref": y_ref})
    (left_out,) = prepared.left_out
    assert left_out["reason"].startswith(reason)


def test_an_imitated_row_can_have_a_target_too(made):
    (example,) = made("targets", {**TRL, "y_ref": " blue"}).train
    assert (len(example.responses), example.best, example.target) == (2, 0, 1)


# Margins


def test_margins_of_a_pair_come_from_two_columns_each(made):
    row = {**TRL, "help_chosen": 1, "help_rejected": "2.5", "harm_chosen": 0, "harm_rejected": -1}
    margins = [MarginSettings(name="harm"), MarginSettings("length"), MarginSettings(name="help")]
    prepared = made("pairs margins", row, margins=margins)
    assert prepared.train[0].margins == [[0.0, 1.0], [-1.0, 2.5]]  # the columns, in their order
    assert prepared.report["sources"][0]["columns_unused"] == []
    assert prepared.report["settings"]["margins"][1]["kind"] == "length"


def test_margins_of_a_ranking_are_a_list(made):
    row = {**RANKED, "help": [1, 2, 3]}
    margins = [MarginSettings(name="help")]
    assert made("pairs margins", row, margins=margins).train[0].margins == [[2.0], [3.0]]
    short = made("pairs margins", row, {**row, "help": [1, 2]}, {**row, "help": None}, margins=margins)
    assert [r["reason"] for r in short.left_out] == ["help is not as long as the responses", "missing help"]


def test_margins_of_our_own_records_and_of_a_named_list_beside_them(made):
    row = record({"text": " b", "score": 1, "margins": [1, 2]}, {"text": " c", "score": 0, "margins": [3, 4]})
    assert made("pairs margins", row).train[0].margins == [[1.0, 2.0], [3.0, 4.0]]
    named = made("pairs margins", {**row, "help": [5, 6]}, margins=[MarginSettings(name="help")])
    assert named.train[0].margins == [[5.0], [6.0]]


def test_the_margin_of_trl_is_the_chosen_responses(made):
    prepared = made("pairs margins", {**TRL, "margin": 0.5})
    assert prepared.train[0].margins == [[0.5], [0.0]]
    assert "the margin of a pair is given to its chosen response, and 0 to the rejected one" in said(prepared)
    prepared = made("pairs margins", {**TRL, "margin": 0.5}, margins=[MarginSettings("length")])
    assert prepared.train[0].margins is None
    assert "models and lengths give them" in said(prepared)
    assert prepared.report["sources"][0]["columns_unused"] == ["margin"]


def test_margins_of_models_need_no_column(made):
    margins = [MarginSettings("implicit", path="x"), MarginSettings("reward", path="y"), MarginSettings("length")]
    for row in (TRL, RANKED, record({"text": " b", "score": 1}, {"text": " c", "score": 0})):
        assert made("pairs margins", row, margins=margins).train[0].margins is None


@pytest.mark.parametrize("row", [TRL, RANKED, record({"text": " b", "score": 1}, {"text": " c", "score": 0})])
def test_a_file_without_margins_is_refused(made, row, tmp_path):
    with pytest.raises(UserError, match="the method needs margins, which these rows") as error:
        made("pairs margins", row)
    assert "data.margins" in error.value.hint
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "row", [{**TRL, "help_chosen": 1}, {**TRL, "help": [1, 0]}, {**RANKED, "help_chosen": 1, "help_rejected": 0}]
)
def test_a_named_objective_that_the_file_lacks_is_refused(made, row, tmp_path):
    margins = [MarginSettings("length"), MarginSettings(name="help")]
    with pytest.raises(UserError, match=r"data\.margins names help, which these rows") as error:
        made("pairs margins", row, margins=margins)
    assert "help" in error.value.hint.partition("wanted: ")[2]
    assert not (tmp_path / "cache").exists()


def test_rows_that_differ_in_the_number_of_margins_are_refused(made):
    def row(count: int) -> dict[str, Any]:
        return record(*({"text": t, "score": s, "margins": [0] * count} for t, s in ((" b", 1), (" c", 0))))

    with pytest.raises(UserError, match=r"rows differ in how many margins a response has: 1 in .*, 2 in "):
        made("pairs margins", row(1), row(2))


# Selections


def test_the_report_names_the_selection_and_the_gap(made):
    ranked = {"prompt": "a", "responses": [" b", " c", " d", " e"], "scores": [0, 2, 1, 0.75]}
    words = {
        "best_vs_worst": "the best and the worst response are the pair",
        "all": "every two responses of different score are a pair",
        "adjacent": "neighbours in score are the pairs",
        "random": "one pair, drawn by a hash of the row's words",
    }
    unused = {"best_vs_worst": 2, "all": 0, "adjacent": 0, "random": 2}
    close = {"best_vs_worst": 0, "all": 1, "adjacent": 1, "random": 1}
    for which, sentence in words.items():
        prepared = made("pairs", ranked, pairs=which, min_score_gap=0.5)
        assert f"1 rankings of more than two responses become pairs: {sentence}" in said(prepared)
        assert (f"{unused[which]} responses are in no pair ({which})" in said(prepared)) is bool(unused[which])
        left_out = f"{close[which]} pairs are left out: their scores differ by less than data.min_score_gap=0.5"
        assert (left_out in said(prepared)) is bool(close[which])
        assert prepared.report["total"]["close_pairs"] == close[which]


def test_rows_left_out_for_the_gap_are_counted(made):
    prepared = made("pairs", SCORED, {**SCORED, "score_chosen": 0.3}, min_score_gap=0.5)
    assert prepared.report["total"]["dropped"] == {"score gap too small": {"count": 1, "rows": [2]}}
    assert prepared.report["total"]["close_pairs"] == 1


def test_selection_and_gap_leave_the_pairs_of_a_ranking_method_alone(made):
    usual = made("ranking", RANKED)
    other = made("ranking", RANKED, pairs="random", min_score_gap=99.0)
    assert other.report["from_cache"]
    assert other.train[0] == usual.train[0]
    assert usual.train[0].pairs == [(1, 2)]


@pytest.mark.parametrize("change", [{"min_score_gap": 0.1}, {"pairs": "random"}, {"pairs": "adjacent"}])
def test_selection_and_gap_encode_anew(made, change):
    made("pairs", RANKED)
    assert not made("pairs", RANKED, **change).report["from_cache"]


@pytest.mark.slow
def test_random_pairs_are_the_same_with_any_number_of_workers_and_in_any_order(made):
    rows = [{**RANKED, "prompt": f"question {n}"} for n in range(600)]

    def drawn(rows: list[dict[str, Any]], workers: int) -> dict[str, Any]:
        train = made("pairs", *rows, pairs="random", num_workers=workers).train
        return {train.prompt_text(e.index): (e.responses, e.pairs) for e in train}

    first = drawn(rows, 1)
    assert len({str(pair) for pair in first.values()}) == 3
    assert drawn(rows[::-1], 2) == first


def test_a_need_that_no_row_serves_names_the_rows(made):
    with pytest.raises(DropError, match="none of 1 rows can be used: score gap too small"):
        made("pairs", SCORED, min_score_gap=5.0)
