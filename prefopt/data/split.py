"""Held-out prompts: taken from the training rows by a hash of the prompt, so that no prompt lies on both sides."""

from __future__ import annotations

import numpy as np

from prefopt.errors import UserError


def held_out(prompt_hashes: np.ndarray, eval_size: float) -> np.ndarray:
    """Which rows are held out.

    prompt_hashes: [E] uint64, one per row. eval_size: below 1 a share of the distinct prompts (at least one), from 1 on
    a number of rows: prompts are taken whole while they fit, so that repeated prompts may leave it a little short.
    Prompts are taken in the order of their hashes: it depends on nothing but the words, and adding rows to the data
    moves few of the others.

    Returns: [E] bool.

    Raises: UserError for a negative size, or one that leaves nothing to train on.
    """
    prompts, counts = np.unique(prompt_hashes, return_counts=True)  # sorted
    if eval_size < 0 or (eval_size >= 1 and eval_size != int(eval_size)):
        raise UserError(f"data.eval_size must be a share below 1 or a whole number of rows, not {eval_size:g}")
    if eval_size == 0:
        return np.zeros(len(prompt_hashes), dtype=bool)
    if eval_size < 1:
        chosen = prompts[: max(1, round(eval_size * len(prompts)))]
    else:
        chosen = _taken_while_they_fit(prompts, counts, int(eval_size))
    if len(chosen) == len(prompts):
        raise UserError(
            f"data.eval_size={eval_size:g} would hold out every one of the {len(prompts)} prompts",
            "make it smaller, or name eval data of its own under data.eval",
        )
    if not len(chosen):
        raise UserError(
            f"data.eval_size={eval_size:g}: every prompt has more rows than that", "make it larger or a share below 1"
        )
    return among(prompt_hashes, chosen)


def among(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """[n] whether each value is one of those in `ascending`; numpy's isin hashes both sides, seconds for a million."""
    if not len(ascending):
        return np.zeros(len(values), dtype=bool)
    places = np.searchsorted(ascending, values)
    return ascending[np.minimum(places, len(ascending) - 1)] == values


def _taken_while_they_fit(prompts: np.ndarray, counts: np.ndarray, num_rows: int) -> np.ndarray:
    room = num_rows
    taken = []
    for prompt, count in zip(prompts, counts):
        if count <= room:
            taken.append(prompt)
            room -= count
        if not room:
            break
    return np.array(taken, dtype=prompts.dtype)
