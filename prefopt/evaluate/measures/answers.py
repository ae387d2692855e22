"""A model's answers to a question set, and the files that the set's evaluator reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from prefopt.errors import UserError
from prefopt.evaluate.measure import EvalPlace, Measured
from prefopt.evaluate.settings import EvalSettings
from prefopt.fill import one_of

__all__ = ["Answers"]

FASTCHAT_TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
"""Of MT-Bench, by category: `temperature_config` of FastChat's llm_judge/common.py (Zheng et al. 2023)."""

_LONGEST = {"alpaca_eval": 2048, "arena_hard_v0.1": 4096, "arena_hard_v2": 4096, "mt_bench": 1024, "prompts": 512}
"""Tokens of an answer: what most models of alpaca_eval 0.6.6 have, gen_answer_config.yaml of Arena-Hard, FastChat's
gen_model_answer, and `generate=sample`."""


@dataclass(frozen=True)
class Answers:
    """Every question answered once: as text, as figures of length and ending, and as the evaluator's own file.

    The model answers with its own chat template and stop tokens, exactly as prompts are encoded in training; a template
    that begins a prompt with a second BOS is refused. The random numbers of an answer are of the seed and the
    conversation alone. Chunks of answers are on the disk as they are made: the same command goes on after a kill and
    ends with the same bytes.

    Written into the folder: answers.jsonl (a line per answer, `prefopt/evaluate/answer_files.py`), and
    model_outputs.json (alpaca_eval), arena-hard-v0.1/ or arena-hard-v2.0/model_answer/GENERATOR.jsonl, or
    mt_bench/model_answer/GENERATOR.jsonl, each in the layout under `data` of its tool.

    questions: a file of questions, as the evaluator has them, gzipped or not; for format=prompts any that prefopt reads
        prompts from.
    format: alpaca_eval, arena_hard_v0.1, arena_hard_v2, mt_bench or prompts.
    temperature: of the softmax; 0 takes the likeliest token. None: 0, and of mt_bench FASTCHAT_TEMPERATURES by
        category (0 for others). SimPO's published figures of AlpacaEval 2 have 0.9 (Llama 3), 0.5 (Mistral-Instruct)
        and 0.7 (Mistral-Base).
    top_k: draws from the k likeliest tokens; 0: all. top_p: from the fewest likeliest that hold this probability.
    max_new_tokens: of an answer; None: 2048 (alpaca_eval), 4096 (arena_hard), 1024 (mt_bench), 512 (prompts).
    max_prompt_tokens: longer prompts are not asked, and counted; None: as far as the model has positions.
    stop: further tokens, as the vocabulary spells them, that end an answer.
    generator: the model's name in the files; empty: the run's or the model folder's name.
    chunk_size: questions that are asked and kept at once.
    """

    questions: str = ""
    format: str = one_of("prompts", "alpaca_eval", "arena_hard_v0.1", "arena_hard_v2", "mt_bench")
    temperature: float | None = None
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int | None = None
    max_prompt_tokens: int | None = None
    stop: list[str] = field(default_factory=list)
    generator: str = ""
    chunk_size: int = 64

    uses: ClassVar[frozenset[str]] = frozenset({"model"})
    reads: ClassVar[frozenset[str]] = frozenset({"chat_template", "device", "dtype", "seed", "tokens_per_batch"})

    def __post_init__(self) -> None:
        if self.format not in _LONGEST:
            raise ValueError(f"format must be one of {', '.join(_LONGEST)}, not {self.format!r}")
        if self.temperature is not None and self.temperature < 0:
            raise ValueError(f"temperature must be 0 or more, not {self.temperature:g}")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_k must be 0 or more, and top_p above 0 and at most 1, not {self.top_k} and {self.top_p:g}"
            )
        if self._is_greedy and (self.top_k or self.top_p < 1):
            raise ValueError("temperature 0 takes the likeliest token: top_k must be 0 and top_p 1")
        for name in ("max_new_tokens", "max_prompt_tokens", "chunk_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")
        if self.generator in (".", "..") or set(self.generator) & set("/\\\0"):
            raise ValueError(f"generator names a file: it must have no slash, not {self.generator!r}")

    @property
    def _is_greedy(self) -> bool:
        return self.temperature == 0 or (self.temperature is None and self.format != "mt_bench")

    @property
    def longest(self) -> int:
        """Tokens of an answer."""
        return _LONGEST[self.format] if self.max_new_tokens is None else self.max_new_tokens

    def temperature_of(self, category: str) -> float:
        """With which questions of a category are answered."""
        if self.temperature is not None:
            return self.temperature
        return FASTCHAT_TEMPERATURES.get(category, 0.0) if self.format == "mt_bench" else 0.0

    def decoding(self) -> str:
        """How answers are decoded, for a note; the temperatures of MT-Bench's categories are another note's."""
        most = f"max_new_tokens={self.longest}"
        if self._is_greedy:
            return f"the likeliest token each time (temperature=0), {most}"
        how = "temperature by category" if self.temperature is None else f"temperature={self.temperature:g}"
        rest = f", top_k={self.top_k}" if self.top_k else ""
        return f"sampled, {how}, top_p={self.top_p:g}{rest}, {most}"

    @property
    def needs(self) -> frozenset[str]:
        """A model that answers."""
        return frozenset({"model"})

    @property
    def files(self) -> Mapping[str, str]:
        """The questions."""
        return {"questions": self.questions}

    def check(self, settings: EvalSettings) -> None:
        """Raises: UserError where nothing is asked."""
        if not self.questions:
            raise UserError(
                "measure.questions: there is nothing to ask",
                "measure.questions=FILE, and measure.format says whose questions they are",
            )

    def work(self, place: EvalPlace, number: int, of: int) -> None:
        """Answer every `of`-th chunk from `number` on. Raises: as `__call__`."""
        from prefopt.evaluate.answer_set import answer_share

        answer_share(self, place, number, of)

    def __call__(self, place: EvalPlace) -> Measured:
        """Ask what was not asked yet, and write the files.

        Raises: UserError for questions that cannot be read and a model that cannot answer; RunError where the disk
            refuses.
        """
        from prefopt.evaluate.answer_set import measure_answers

        return measure_answers(self, place)
