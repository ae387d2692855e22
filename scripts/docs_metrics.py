"""Every name that a run may write into metrics.jsonl, with unit and meaning: docs/reference/metrics.md.

Standard library only. NAME in a name stands for any word without a slash.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Metric(NamedTuple):
    """One name. unit: of its value. means: what it is."""

    name: str
    unit: str
    means: str


_SIDES = "chosen, rejected"
_LABELS = "desirable, undesirable"

STEP = (
    Metric("step", "steps", "optimiser steps done; 0 is before training"),
    Metric("epoch", "passes", "share of the training data seen, in passes over it"),
    Metric("lr", "1", "learning rate of the step; lines without it are looks between steps (evaluations, samples)"),
    Metric("loss", "of the method", "the sum of the terms below times their weights"),
    Metric("loss/NAME", "of the term", "a term of the loss without its weight, a mean over its units of the step"),
    Metric("grad_norm", "loss per weight", "Euclidean norm of the gradient over all weights, before clipping"),
    Metric("skipped", "steps", "1 where numbers that are not finite left the step out (train.on_nonfinite=skip_step)"),
)
RESPONSES = (
    Metric("nll", "nats per token", "minus the mean log-probability of the tokens of chosen or best responses"),
    *(Metric(f"rewards/{side}", "reward", f"mean reward of {side} responses, as the method defines it")
      for side in f"{_SIDES}, {_LABELS}".split(", ")),
    Metric("rewards/margin", "reward", "chosen minus rejected, mean over pairs"),
    Metric("rewards/accuracy", "share", "of pairs whose chosen response has the higher reward; a tie counts 0"),
    *(Metric(f"logps/{side}", "nats", f"log-probability of {side} responses, sums over tokens, EOS included")
      for side in f"{_SIDES}, {_LABELS}".split(", ")),
    *(Metric(f"length/{side}", "tokens", f"of {side} responses, EOS included")
      for side in f"{_SIDES}, {_LABELS}".split(", ")),
    Metric("kl", "nats", "the baseline of KTO: mean log-ratio of responses to other prompts, cut at 0"),
)  # fmt: skip
MACHINE = (
    Metric("tokens_per_second", "tokens/s", "places on the token axis, prompts shared, of all processes"),
    Metric("pairs_per_second", "1/s", "pairs, or responses where the method knows no pairs"),
    Metric("data_wait_share", "share", "of the step in which a process waited for its rows"),
    Metric("peak_memory_bytes", "bytes", "most memory held: of the GPU in this step, or of the process on a CPU"),
    Metric("imbalance", "1", "work of the busiest process over the mean; 1 is even"),
    Metric("padding_share", "share", "of the token axis that is padding"),
)
SAMPLES = (
    Metric("samples/length", "tokens", "mean length of the answers"),
    Metric("samples/stopped", "share", "of answers that ended by themselves"),
    Metric("samples/repetition", "share", "of an answer's token 4-grams that it has had before, mean over answers"),
    Metric("samples/drift", "nats", "how far held-out chosen (or desirable) responses moved since before training"),
    Metric("samples/drift_per_token", "nats per token", "the same, divided by their length; negative: less likely"),
    Metric("samples/collapsed", "0 or 1", "1 where a limit of `sample` is passed"),
)

EVALUATED = tuple(m for m in (*STEP, *RESPONSES) if m.name not in ("step", "epoch", "lr", "grad_norm", "skipped"))
"""What an evaluation has of a set NAME, as eval/NAME/..."""

SECTIONS = (
    ("Of every step", STEP),
    ("Of responses and pairs", RESPONSES),
    ("Of the machine, and of how the step was cut", MACHINE),
    ("Of answers while the run goes on (`sample.every`)", SAMPLES),
)


def is_documented(name: str) -> bool:
    """Whether a key of metrics.jsonl is one of these."""
    plain = re.sub(r"^eval/[^/]+/", "", name)
    pool = EVALUATED if plain != name else tuple(m for _, metrics in SECTIONS for m in metrics)
    return any(re.fullmatch(re.escape(m.name).replace("NAME", "[^/]+(/[^/]+)?"), plain) for m in pool)


def page() -> str:
    """The page, as markdown."""
    parts = [
        "# Metrics\n",
        "Made by `scripts/docs_reference.py`. Each line of metrics.jsonl in the run's folder is an object of these"
        " names; the tracker gets the same. Every number is a sum over the whole step (or set) and all processes"
        " divided by its count. All but those of the machine are the same in a run that was killed and resumed.\n",
    ]
    for heading, metrics in SECTIONS:
        parts.append(f"## {heading}\n\n| name | unit | meaning |\n|---|---|---|")
        parts += [f"| `{m.name}` | {m.unit} | {m.means} |" for m in metrics]
        parts.append("")
    parts.append(
        "## Of an evaluation\n\n`eval/SET/` and any of: "
        + ", ".join(f"`{m.name}`" for m in EVALUATED)
        + ". Means over the whole set; `train.best_metric=eval/SET/rewards/accuracy` names one of them.\n"
    )
    return "\n".join(parts)
