"""The token axis of a packed batch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prefopt.batch import Encoded, Segment, Span, Unit
from prefopt.pack import num_tokens, pack

A = Encoded("a", 0, [1, 5, 9], [[7, 8, 2], [2]], [(0, 1)], 0)
B = Encoded("b", 1, [1], [[4, 2], [3, 3, 2], [6, 2]], [(1, 0), (1, 2)], 1, labels=[True, False, True])


def test_a_shared_prompt_lies_once_before_its_responses() -> None:
    batch = pack([A, B])
    assert batch.input_ids.tolist() == [1, 5, 9, 7, 8, 1, 4, 3, 3, 6]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 4, 0, 1, 1, 2, 1]
    assert batch.segments == (
        Segment(Span(0, 3), (Span(3, 5), Span(5, 5))),
        Segment(Span(5, 6), (Span(6, 7), Span(7, 9), Span(9, 10))),
    )


def test_the_first_token_of_every_response_is_predicted_by_the_last_prompt_token() -> None:
    batch = pack([A, B])
    assert batch.target.tolist() == [7, 8, 2, 2, 4, 2, 3, 3, 2, 6, 2]
    assert batch.predictor.tolist() == [2, 3, 4, 2, 5, 6, 5, 7, 8, 5, 9]
    assert batch.row.tolist() == [0, 0, 0, 1, 2, 2, 3, 3, 3, 4, 4]


def test_pairs_and_best_are_rows_of_the_whole_batch() -> None:
    batch = pack([A, B])
    assert batch.pairs.tolist() == [[0, 1], [3, 2], [3, 4]]
    assert batch.best.tolist() == [0, 3]
    assert batch.lengths.tolist() == [3, 1, 2, 3, 2]
    assert batch.example.tolist() == [0, 0, 1, 1, 1]


def test_a_repeated_prompt_stands_before_each_response_and_predicts_the_same() -> None:
    shared, repeated = pack([A, B]), pack([A, B], share_prompts=False)
    assert repeated.input_ids.tolist() == [1, 5, 9, 7, 8, 1, 5, 9, 1, 4, 1, 3, 3, 1, 6]
    assert all(len(s.responses) == 1 for s in repeated.segments)
    assert repeated.target.tolist() == shared.target.tolist()
    assert repeated.pairs.tolist() == shared.pairs.tolist()
    assert repeated.counts() == shared.counts()


def test_units_are_counted() -> None:
    batch = pack([A, B], prompt_logps=True)
    assert batch.counts() == {
        Unit.TOKEN: 3 + 3,
        Unit.SEQUENCE_TOKEN: 3 + 3 + 2,
        Unit.RESPONSE: 5,
        Unit.DESIRABLE: 0,
        Unit.UNDESIRABLE: 0,
        Unit.DESIRABLE_TOKEN: 0,
        Unit.PAIR: 3,
        Unit.EXAMPLE: 2,
    }


def test_labelled_responses_are_counted_by_their_label() -> None:
    batch = pack([B])
    assert batch.count(Unit.DESIRABLE) == 2
    assert batch.count(Unit.UNDESIRABLE) == 1
    assert batch.count(Unit.DESIRABLE_TOKEN) == 2 + 2


def test_given_tokens_are_read_and_not_predicted() -> None:
    batch = pack([replace(A, given=[len(r) - 1 for r in A.responses])])
    assert batch.target.tolist() == [r[-1] for r in A.responses]
    assert batch.lengths.tolist() == [1] * len(A.responses)
    assert batch.input_ids.tolist() == pack([A]).input_ids.tolist()
    before = [r[-2] if len(r) > 1 else A.prompt[-1] for r in A.responses]
    assert batch.input_ids[batch.predictor].tolist() == before


def test_whole_responses_end_on_the_axis() -> None:
    for share in (True, False):
        batch = pack([A, B], share, whole_responses=True)
        assert batch.last is not None
        assert batch.input_ids[batch.last].tolist() == [r[-1] for e in (A, B) for r in e.responses]
        assert batch.target.tolist() == pack([A, B], share).target.tolist()


def test_prompt_tokens_are_predicted_once_whatever_the_layout() -> None:
    for share in (True, False):
        batch = pack([A, B], share, prompt_logps=True)
        assert batch.prompt_target.tolist() == [5, 9]
        assert batch.prompt_example.tolist() == [0, 0]
        assert batch.input_ids[batch.prompt_predictor].tolist() == [1, 5]


def test_num_tokens_is_the_length_of_the_axis() -> None:
    for share in (True, False):
        for example in (A, B):
            lengths = [len(r) for r in example.responses]
            assert num_tokens(len(example.prompt), lengths, share) == len(pack([example], share).input_ids)


def test_a_column_exists_where_every_example_has_it() -> None:
    assert pack([B]).labels is not None
    assert pack([A, B]).labels is None


def test_an_empty_response_or_prompt_never_reaches_a_batch() -> None:
    for broken in ([], [Encoded("x", 0, [], [[2]], [], 0)], [Encoded("x", 0, [1], [[]], [], 0)]):
        with pytest.raises(ValueError, match="at least one example"):
            pack(broken)
