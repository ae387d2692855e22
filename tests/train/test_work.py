"""What rows cost: counted by hand on two rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ragged import make_engine, ragged_rows, settings

from prefopt.data.plan import Cut
from prefopt.model.policy import Policy
from prefopt.pack import pack
from prefopt.train.rows import Rows
from prefopt.train.work import balance, count_work, tokens_per_entry

PROMPTS, RESPONSES, OFFSETS = np.array([3, 2]), np.array([2, 1, 4]), np.array([0, 2, 3])


def test_scores_are_counted_for_shared_and_repeated_prompts() -> None:
    tokens, entries = count_work(PROMPTS, RESPONSES, OFFSETS, share_prompts=True)
    assert tokens.tolist() == [6, 6]
    # Three prompt tokens see 1 + 2 + 3 places, two tokens behind them 4 + 5, the other response's 4.
    assert entries.tolist() == [6 + 9 + 4, 3 + 3 + 4 + 5 + 6]
    tokens, entries = count_work(PROMPTS, RESPONSES, OFFSETS, share_prompts=False)
    assert tokens.tolist() == [9, 6]
    assert entries.tolist() == [15 + 10, 21]


@pytest.mark.parametrize("needs", [frozenset(), frozenset({"rewards"}), frozenset({"kl"})], ids=str)
@pytest.mark.parametrize("share", [True, False], ids=["shared", "repeated"])
def test_costs_are_the_lengths_of_packed_rows(needs: frozenset[str], share: bool) -> None:
    both = ragged_rows(needs, share)
    for rows in [both] if both.baseline is None else [both, both.baseline]:
        for place in range(len(rows)):
            batch = rows.pack([place])
            seen = sum(
                int(batch.position_ids[span.start : span.stop].sum()) + span.stop - span.start
                for segment in batch.segments
                for span in (segment.prompt, *segment.responses)
            )
            assert rows.costs[place] == batch.input_ids.shape[0]
            assert rows.entries[place] == seen  # a place at position n sees n + 1 places


def policy() -> Policy:
    return make_engine(settings("one")).policy


def test_a_score_is_worth_its_share_of_a_token() -> None:
    model = policy()
    config = model.pretrained.config
    parameters = sum(p.numel() for p in model.pretrained.parameters())
    score = 2 * 2 * config.num_attention_heads * config.head_dim * config.num_hidden_layers
    assert tokens_per_entry(model) == pytest.approx(score / (2 * parameters))
    rows = Rows(ragged_rows(frozenset(), True).data, frozenset(), True, 0.25)
    assert rows.work.tolist() == (1000 * rows.costs + 250 * rows.entries).tolist()


def test_waste_is_counted_by_hand() -> None:
    rows = ragged_rows(frozenset(), False)
    dealt = Cut((((1, 2), (3,)), ((0,), ())))
    ranks = [int(rows.costs[[1, 2, 3]].sum()), int(rows.costs[0])]
    found = balance(rows, dealt, "packed")
    assert found == {"imbalance": pytest.approx(max(ranks) / (sum(ranks) / 2)), "padding_share": 0.0}
    padded = 0
    for members in ((1, 2), (3,), (0,)):
        lengths = torch.tensor([s.responses[0].stop - s.prompt.start for p in members for s in packed(rows, p)])
        padded += len(lengths) * int(lengths.max())
    share = 1 - int(rows.costs[:4].sum()) / padded
    assert balance(rows, dealt, "padded")["padding_share"] == pytest.approx(share)
    assert share > 0.1


def packed(rows: Rows, place: int) -> tuple:
    return pack([rows[place]], share_prompts=False).segments
