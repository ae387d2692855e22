"""What a method can ask of the data, of the model and of the step; a loss lists these names in its `needs`."""

from __future__ import annotations

NEEDS = {
    # of the data
    "pairs": "(chosen, rejected) pairs",
    "best": "with pairs: the best response of the prompt, also where it is in no pair",
    "ranking": "every response of a prompt, with scores of which at least two differ",
    "labels": "responses marked desirable or not",
    "demonstrations": "with labels: a row without one is taken for desirable",
    "scores": "a score for each response",
    "probabilities": "scores that are probabilities of winning, in [0, 1]",
    "margins": "rewards of other objectives, the same number for each response",
    "targets": "a response to imitate beside the others (column y_ref)",
    "verdicts": 'each response followed by "Good" or "Bad", which alone is predicted',
    "comparisons": 'each pair in both orders followed by "A" or "B", which alone is predicted',
    # of the model and the step
    "reference": "reference log-probabilities, scored once and kept",
    "reference_tokens": "the same for every token",
    "forward_kl": "KL(reference || policy) at each response token, from a live reference",
    "reverse_kl": "KL(policy || reference) at each response token, from a live reference",
    "collision": "log sum of squared probabilities at each response token",
    "kl": "mean log-ratio of responses to other prompts, over the whole step",
    "step": "what the loss observes in every response of the whole step, by a first pass without gradients",
    "rewards": "a scalar head instead of the LM head",
    "prompt_logps": "log-probabilities of the prompt's tokens",
}
"""What a method can ask for, and what that is."""

LIVE = frozenset({"forward_kl", "reverse_kl"})
"""Needs that a column cannot serve: whole distributions of a live reference."""
