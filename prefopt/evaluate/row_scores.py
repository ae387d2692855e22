"""What a model gives to some rows of a set, as plain columns in the order of the rows."""

from __future__ import annotations

import numpy as np
import torch

from prefopt.batch import Batch, Responses
from prefopt.errors import RunError
from prefopt.model.forward import Forward, respond
from prefopt.train.rows import Rows

BY_TOKEN = ("token_logps", "forward_kl", "reverse_kl", "collision")
"""Columns with a number per predicted token of a response."""


def score_rows(
    forward: Forward, rows: Rows, places: np.ndarray, needs: frozenset[str], budget: int, device: str
) -> dict[str, np.ndarray]:
    """The columns of the rows at `places`, ascending.

    lengths [R]: predicted tokens. logps [R]: nats, float64 sums; rewards [R]: of a scalar head, which has no logps.
    token_logps, forward_kl, reverse_kl, collision [N] float32: where there are any, see `Responses`. prompt_lengths,
    prompt_counts [E]: tokens of the prompt; how many of them prompt_logps [Q] has. needs: the loss's. budget: tokens on
    the axis at once.

    Raises: RunError naming the first row with a number that is not finite.
    """
    of_rows: dict[int, dict[str, np.ndarray]] = {}
    (shares,) = rows.cut(places, 1, budget).micro_batches
    with torch.no_grad():
        for share in shares:
            if share:
                batch = rows.pack(share)
                responses = respond(forward, batch.to(device), needs)
                of_rows.update(zip(share, _by_row(batch, responses), strict=True))
    for place in places:
        for name, values in of_rows[int(place)].items():
            if not np.isfinite(values).all():
                raise RunError(
                    f"{rows[int(place)].id}: {name} has a number that is not finite",
                    "take another model, or dtype=float32; look at that row",
                )
    names = list(of_rows[int(places[0])]) if len(places) else []
    return {name: np.concatenate([of_rows[int(place)][name] for place in places]) for name in names}


def _by_row(batch: Batch, responses: Responses) -> list[dict[str, np.ndarray]]:
    """The columns of each example of a batch."""
    num_examples = len(batch.ids)
    lengths = batch.lengths.numpy()
    num_responses = np.bincount(batch.example.numpy(), minlength=num_examples)
    num_tokens = np.bincount(batch.example.numpy(), weights=lengths, minlength=num_examples).astype(np.int64)
    prompt_counts = np.bincount(batch.prompt_example.numpy(), minlength=num_examples)
    columns: dict[str, tuple[np.ndarray, np.ndarray]] = {
        "lengths": (lengths, num_responses),
        "prompt_lengths": (batch.prompt_lengths.numpy(), np.ones(num_examples, dtype=np.int64)),
        "prompt_counts": (prompt_counts, np.ones(num_examples, dtype=np.int64)),
    }
    if responses.rewards is not None:
        columns["rewards"] = (responses.rewards.float().cpu().numpy(), num_responses)
    else:
        columns["logps"] = (responses.logps.cpu().numpy(), num_responses)
        if responses.prompt_logps is not None:
            columns["prompt_logps"] = (responses.prompt_logps.float().cpu().numpy(), prompt_counts)
        for name in BY_TOKEN:
            if (values := getattr(responses, name)) is not None:
                columns[name] = (values.float().cpu().numpy(), num_tokens)
    cut = {name: np.split(values, np.cumsum(counts)[:-1]) for name, (values, counts) in columns.items()}
    return [{name: parts[number] for name, parts in cut.items()} for number in range(num_examples)]
