"""The rows of KTO's baseline: every prompt with somebody else's responses, as long as memory is planned for."""

from __future__ import annotations

import numpy as np
import pytest
from ragged import RaggedSet

from prefopt.errors import UserError
from prefopt.train.mismatched import MismatchedSet, longest_row
from prefopt.train.rows import Rows

DATA = RaggedSet(frozenset())


def test_each_prompt_gets_the_responses_of_the_next_other_prompt() -> None:
    mismatched = MismatchedSet(DATA)  # type: ignore[arg-type]
    for place in range(len(DATA)):
        own, donor = DATA[place], DATA[(place + 1) % len(DATA)]
        row = mismatched[place]
        room = longest_row(DATA) - len(own.prompt)  # type: ignore[arg-type]
        assert row.id == f"{own.id} answered by {donor.id}"
        assert row.prompt == own.prompt
        assert row.responses == [response[:room] for response in donor.responses]
        assert row.pairs == []


def test_lengths_and_offsets_are_those_of_the_rows() -> None:
    mismatched = MismatchedSet(DATA)  # type: ignore[arg-type]
    lengths = [[len(r) for r in mismatched[place].responses] for place in range(len(DATA))]
    assert mismatched.response_lengths.tolist() == [n for row in lengths for n in row]
    assert np.diff(mismatched.response_offsets).tolist() == [len(row) for row in lengths]
    assert longest_row(mismatched) <= longest_row(DATA)  # type: ignore[arg-type]


def test_rows_with_the_same_prompt_do_not_serve_each_other() -> None:
    data = RaggedSet(frozenset())
    data.prompt_hashes = np.array([1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 1])
    mismatched = MismatchedSet(data)  # type: ignore[arg-type]
    assert mismatched._donors.tolist() == [3, 3, 3, 5, 5, 12, 12, 12, 12, 12, 12, 12, 3]


def test_one_prompt_alone_is_refused() -> None:
    data = RaggedSet(frozenset())
    data.prompt_hashes = np.zeros(13)
    with pytest.raises(UserError, match="all 13 rows have the same prompt"):
        MismatchedSet(data)  # type: ignore[arg-type]


def test_only_a_method_that_asks_for_it_has_a_baseline() -> None:
    assert Rows(DATA, frozenset({"labels"}), True).baseline is None  # type: ignore[arg-type]
    baseline = Rows(DATA, frozenset({"labels", "kl"}), True).baseline  # type: ignore[arg-type]
    assert baseline is not None
    assert baseline.baseline is None
    axis = [len(baseline.pack([place]).input_ids) for place in range(len(baseline))]
    assert baseline.costs.tolist() == axis
