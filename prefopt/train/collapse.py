"""Does the model still write? Numbers about its answers in training, and limits beyond which it has collapsed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from prefopt.errors import RunError
from prefopt.settings import SampleSettings
from prefopt.train.answers import KeptAnswers
from prefopt.train.checkpoint import Progress
from prefopt.train.engine import Engine
from prefopt.train.rows import Rows
from prefopt.train.sample import Answer, sample

GRAM = 4
"""Tokens of which a repetition consists: fewer recur in good prose too."""


def repetition(tokens: Sequence[int]) -> float:
    """Share of an answer's token 4-grams that have occurred before in it; 0 for an answer of fewer than 4 tokens.

    tokens: without the one that ended the answer. n of them have n - 3 4-grams, which overlap; one has occurred before
    where an equal one begins at an earlier place. So a loop of p tokens that fills the answer gives
    1 - p / (n - 3), and p = 1 is one token over and over.
    """
    grams = [tuple(tokens[start : start + GRAM]) for start in range(len(tokens) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def measure(answers: Sequence[Answer]) -> dict[str, float]:
    """Means over answers. length: tokens, the one that ended the answer included, as in `length/chosen`. stopped: share
    of answers that the model ended itself, before the limit did. repetition: see `repetition`."""
    return {
        "length": sum(len(a.tokens) + a.stopped for a in answers) / len(answers),
        "stopped": sum(a.stopped for a in answers) / len(answers),
        "repetition": sum(repetition(a.tokens) for a in answers) / len(answers),
    }


def drift(before: Mapping[str, float], latest: Mapping[str, float]) -> dict[str, float]:
    """How far held-out chosen (or desirable) responses have moved since before training; negative: less likely.

    before, latest: evaluations; the first set that has such responses counts. drift: mean over responses, nats.
    drift_per_token: that over their mean length. Nothing where there was no evaluation.
    """
    for kind in ("chosen", "desirable"):
        name = next((key for key in before if key.endswith(f"/logps/{kind}")), None)
        if name is not None and name in latest:
            nats = latest[name] - before[name]
            return {"drift": nats, "drift_per_token": nats / before[name.replace("/logps/", "/length/")]}
    return {}


def what_collapsed(numbers: Mapping[str, float], limits: SampleSettings) -> str:
    """Which limits the numbers pass, in words; empty where none is passed."""
    found = []
    if numbers["repetition"] > limits.max_repetition:
        share = f"{100 * numbers['repetition']:.0f} % of an answer's 4-grams have occurred before in it"
        found.append(f"{share} (sample.max_repetition={limits.max_repetition:g})")
    fell = -numbers.get("drift_per_token", 0.0)
    if fell > limits.max_drift:
        found.append(f"held-out responses fell by {fell:.2f} nats per token (sample.max_drift={limits.max_drift:g})")
    return " and ".join(found)


class Watch:
    """The answers of a run: before training, every `sample.every` steps, and after."""

    def __init__(
        self, engine: Engine, tokenizer: PreTrainedTokenizerBase, rows: Rows, folder: Path, progress: Progress
    ) -> None:
        """rows: held out; the first `sample.count` of them are asked. folder: of the run."""
        self._engine = engine
        self._tokenizer = tokenizer
        self._rows = rows
        self._folder = folder
        self._progress = progress
        self._kept = KeptAnswers(folder / "samples_before.json", engine.is_main)
        self._taken: tuple[int, list[Answer]] | None = None

    def keep(self) -> None:
        """Answers of the untrained model, to compare with. Every rank must call, as all that follow."""
        self._kept.write([a.text for a in self._answers()])

    def compare(self) -> None:
        """samples.jsonl: those and the answers of the weights as they are now."""
        self._kept.compare([a.text for a in self._answers()], self._rows, self._folder / "samples.jsonl")

    def look(self, say: Callable[[str], None]) -> tuple[dict[str, float], str]:
        """The numbers for metrics.jsonl, and what has collapsed (also said); nothing where `sample.every` is never.

        The drift is that of the newest evaluation.
        """
        limits, progress = self._engine.run.sample, self._progress
        if limits.every == "never":
            return {}, ""
        numbers = {**measure(self._answers()), **drift(progress.before, progress.latest)}
        collapse = what_collapsed(numbers, limits)
        if collapse:
            say(f"step {progress.step}: the model collapses: {collapse}")
        numbers["collapsed"] = float(bool(collapse))
        return {f"samples/{name}": value for name, value in numbers.items()}, collapse

    def error(self, collapse: str) -> RunError:
        """What ends the run, where it is not to go on with a model that has collapsed."""
        step = self._progress.step
        if step == 0:
            return RunError(
                f"before training the model already is beyond a limit: {collapse}",
                "raise that limit, or take another sample.temperature (1 is the model's own distribution)",
            )
        return RunError(
            f"the model has collapsed at step {step}: {collapse}",
            f"{self._folder / 'checkpoints'} still has what was saved before, samples.jsonl what it writes now; a lower"
            " optim.lr is the usual cure, and sample.on_collapse=warn goes on from here",
        )

    def _answers(self) -> list[Answer]:
        """Sampled once for each step; none where `sample.count` is 0."""
        run = self._engine.run
        if not run.sample.count:
            return []
        if self._taken is None or self._taken[0] != self._progress.step:
            answers = sample(self._engine, self._tokenizer, self._rows, run.sample, run.train.seed)
            self._taken = self._progress.step, answers
        return self._taken[1]
