"""What rows cost to compute, and how evenly a step's cost lies over ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prefopt.data.plan import Cut

if TYPE_CHECKING:
    from prefopt.model.policy import Policy
    from prefopt.train.rows import Rows


def count_work(
    prompts: np.ndarray, responses: np.ndarray, offsets: np.ndarray, share_prompts: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens on the axis [E], and attention scores [E] int64: for each place, the places it sees, itself included.

    prompts [E]: tokens. responses [R]: tokens on the axis. offsets [E + 1]: where each row's responses begin.
    share_prompts: each prompt is on the axis once, and not once for each response.
    """
    prompts, responses = prompts.astype(np.int64), responses.astype(np.int64)
    own = np.repeat(prompts, np.diff(offsets))

    def per_row(values: np.ndarray) -> np.ndarray:
        return np.diff(np.concatenate(([0], np.cumsum(values)))[offsets])

    of_prompts = prompts * (prompts + 1) // 2
    of_responses = responses * own + responses * (responses + 1) // 2
    times = 1 if share_prompts else np.diff(offsets)
    return times * prompts + per_row(responses), times * of_prompts + per_row(of_responses)


def tokens_per_entry(policy: Policy) -> float:
    """How many tokens' work one attention score is, by the sizes of the model.

    A score costs 2 * heads * head size multiplications and additions for query times key and as many for weight times
    value, in every layer; a token costs 2 for every parameter. Both double in the backward pass.
    """
    config = policy.pretrained.config.get_text_config()
    head_size = config.to_dict().get("head_dim")
    width = config.hidden_size if head_size is None else config.num_attention_heads * head_size
    # ZeRO-3 leaves a parameter empty until it is used and keeps its size beside it.
    num_parameters = sum(vars(p).get("ds_numel", p.numel()) for p in policy.pretrained.parameters())
    return 2 * width * config.num_hidden_layers / num_parameters


def balance(rows: Rows, dealt: Cut, layout: str) -> dict[str, float]:
    """What a cut wastes, the same for every start of a run.

    imbalance: the work of the rank that has most over the mean of all; 1 is even. padding_share: places of padding
    among all places that are computed; 0 in packed layouts.
    """
    ranks = [sum(int(rows.work[list(places)].sum()) for places in share) for share in dealt.micro_batches]
    places = [list(members) for share in dealt.micro_batches for members in share if members]
    real = sum(int(rows.costs[members].sum()) for members in places)
    computed = sum(rows.padded_places(members) for members in places) if layout == "padded" else real
    return {"imbalance": max(ranks) * len(ranks) / sum(ranks), "padding_share": 1 - real / computed}
