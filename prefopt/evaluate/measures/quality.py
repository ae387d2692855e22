"""What answers are like as texts: length, repetition, diversity, refusals, constant answers; before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from prefopt.errors import UserError
from prefopt.evaluate.measure import EvalPlace, Measured

__all__ = ["Quality"]


@dataclass(frozen=True)
class Quality:
    """Figures of a file of answers, as `prefopt/evaluate/text_quality.py` defines them; no model is loaded.

        answers/length/words, /characters, /tokens   means over answers; tokens where the file has them, or `tokenizer`
        answers/repetition                           mean share of word 4-grams that have occurred before in the answer
        answers/token_repetition                     the same of token 4-grams, as training watches it; by `tokenizer`
        answers/distinct/1, /2, /3                   distinct word n-grams over all of them
        answers/self_bleu                            mean BLEU-4 of an answer with the others as references
        answers/stopped, /empty, /refusal            shares; stopped where the file says it
        answers/identical, /most_common              share of answers that another one equals; that of the commonest

    With answers from before training, both are cut to the questions that both answer; there are the same figures as
    before/... and, as answers minus before, difference/... with paired intervals. identical, most_common, distinct and
    self_bleu have no interval: a resample repeats answers, which is what they measure.

    answers: answers.jsonl of measure=answers, a file of AlpacaEval, Arena-Hard or MT-Bench, or samples.jsonl of a run,
        which has the answers from before training too. Must be given.
    before: such a file by the model before training.
    tokenizer: a model's folder or hub name, by whose tokenizer tokens are counted, special tokens left out.
    self_bleu_answers: how many answers self-BLEU is taken over, drawn by the seed: it grows with their number, and sets
        can only be compared at one number. 0: no self-BLEU.
    """

    answers: str = ""
    before: str | None = None
    tokenizer: str | None = None
    self_bleu_answers: int = 500
    uses: ClassVar[frozenset[str]] = frozenset()
    reads: ClassVar[frozenset[str]] = frozenset({"resamples", "seed"})
    units: ClassVar[Mapping[str, str]] = {
        "words": "words",
        "characters": "characters",
        "tokens": "tokens",
        "repetition": "share",
        "token_repetition": "share",
        "distinct": "share",
        "stopped": "share",
        "empty": "share",
        "refusal": "share",
        "identical": "share",
        "most_common": "share",
    }

    def __post_init__(self) -> None:
        if not self.answers:
            raise ValueError("answers must be given: a file of answers, or samples.jsonl of a run")
        if self.before == "":
            raise ValueError("before must be a file or null, not empty")
        if self.tokenizer == "":
            raise ValueError("tokenizer must be a folder, a hub name or null, not empty")
        if self.self_bleu_answers < 0 or self.self_bleu_answers == 1:
            raise ValueError(f"self_bleu_answers must be 0, or 2 or more, not {self.self_bleu_answers}")

    @property
    def files(self) -> Mapping[str, str]:
        """The files of answers."""
        return {"measure.answers": self.answers} | ({} if self.before is None else {"measure.before": self.before})

    def __call__(self, place: EvalPlace) -> Measured:
        """Measure. Raises: UserError for a file that is not there or holds something else."""
        from prefopt.evaluate.answer_files import read_answers
        from prefopt.evaluate.quality_figures import Counting, measure_answers
        from prefopt.evaluate.samples_file import is_samples_file, read_samples

        path = Path(self.answers).expanduser()
        before = None
        if is_samples_file(path):
            if self.before is not None:
                raise UserError(
                    f"measure.before: {path} has the answers from before training itself", "leave measure.before out"
                )
            before, answers = read_samples(path)
        else:
            answers = read_answers(path)
            if self.before is not None:
                before = read_answers(Path(self.before).expanduser())
        counting = Counting(self._tokens(), self.self_bleu_answers, place.settings.resamples, place.settings.seed)
        return measure_answers(answers, before, counting)

    def _tokens(self):
        """The function from a text to its token ids; None without a tokenizer."""
        if self.tokenizer is None:
            return None
        from prefopt.data.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(self.tokenizer)
        return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
