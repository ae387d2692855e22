"""Win rate of a model's answers against a baseline's, by a judge on a server or by a reward model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from prefopt.errors import UserError
from prefopt.evaluate.measure import EVERY_SETTING, EvalPlace, Figure, Measured
from prefopt.evaluate.settings import EvalSettings
from prefopt.pairs.registry import make_stage

if TYPE_CHECKING:
    from prefopt.evaluate.matched import Matched
    from prefopt.evaluate.verdicts import Verdict
    from prefopt.pairs.score.judge import Judge

__all__ = ["WinRate"]


@dataclass(frozen=True)
class WinRate:
    """How often the answers of one file are preferred to those of another, ties half, in percent.

    A judge is asked twice about each question, each answer first once; the preference is the mean of both (Zheng et al.
    2023, arXiv 2306.05685). A reward model prefers the answer of the higher reward.

        win_rate, win_rate/CATEGORY   mean preference
        length_controlled_win_rate    what it would be at equal length: sigmoid of the constant of the model of Dubois
                                      et al. 2024 without the difficulty of instructions, which one model cannot
                                      tell (`plain_fit` of prefopt/evaluate/length_controlled.py)
        longer/win_rate               mean preference for the longer answer, by characters; equal lengths aside
        orders/agreement              share of questions of which the judge says the same in both orders
        orders/first_shown            mean preference for what is shown first; 50 of a judge without such a bias
        length/model, length/baseline mean characters

    Intervals: 95 %, bootstraps over questions; of the length-controlled rate at most 200.

    answers, baseline: files as prefopt/evaluate/answer_files.py reads them, matched by id, or by prompt where no id is
        in both. allow_unmatched: leave out questions that only one file has.
    judge: settings of the judge, as of `score=judge` of prefopt pairs (url, model, template, ...), pairwise. None: the
        reward model of `reward=`.
    price_per_million: [of tokens to the judge, of tokens from it], for the estimate. estimate_only: only say what
        asking would cost; nothing is asked.
    max_missing: so many questions may be without a verdict; they are left out.
    allow_degenerate: measure answers that do not depend on the question (prefopt/evaluate/degenerate.py).
    """

    answers: str = ""
    baseline: str = ""
    allow_unmatched: bool = False
    judge: dict[str, Any] | None = None
    price_per_million: list[float] | None = None
    estimate_only: bool = False
    max_missing: int = 0
    allow_degenerate: bool = False

    uses: ClassVar[frozenset[str]] = frozenset({"reward"})
    reads: ClassVar[frozenset[str]] = EVERY_SETTING
    units: ClassVar[Mapping[str, str]] = {
        "win_rate": "%",
        "length_controlled_win_rate": "%",
        "orders": "%",
        "length": "characters",
    }

    def __post_init__(self) -> None:
        if self.max_missing < 0:
            raise ValueError(f"max_missing must be 0 or more, not {self.max_missing}")
        prices = self.price_per_million
        if prices is not None and (len(prices) != 2 or min(prices) < 0):
            raise ValueError(f"price_per_million must be two prices of 0 or more, [to it, from it], not {prices}")
        if self.judge is None:
            if prices is not None or self.estimate_only:
                raise ValueError("price_per_million and estimate_only have no effect without judge")
            return
        if self.judge.get("mode", "pairwise") != "pairwise":
            raise ValueError(f"judge.mode is pairwise here, not {self.judge['mode']!r}")
        object.__setattr__(self, "judge", asdict(self._judge()))  # so that a default that is spelt out changes nothing

    @property
    def files(self) -> Mapping[str, str]:
        """All files that are read."""
        template = str((self.judge or {}).get("template") or "")
        own = {"template": template} if "/" in template or "." in template else {}
        return {"answers": self.answers, "baseline": self.baseline, **own}

    def check(self, settings: EvalSettings) -> None:
        """Raises: UserError where a file or whoever judges is missing, or both judge."""
        for key in ("answers", "baseline"):
            if not getattr(self, key):
                raise UserError(f"measure.{key}: no file is named", f"measure.{key}=FILE, such as answers.jsonl")
        if self.judge is None and not settings.reward:
            raise UserError("measure.judge: nobody judges", "measure.judge={url: ..., model: ...}, or reward=MODEL")
        if self.judge is not None and settings.reward:
            raise UserError("measure.judge and reward are both given: who is to judge?", "leave one of them out")

    def __call__(self, place: EvalPlace) -> Measured:
        """Compare. Raises: UserError for files that do not match, degenerate answers, too few verdicts; RunError for a
        server that fails."""
        from prefopt.evaluate.answer_files import read_answers
        from prefopt.evaluate.decoded import decoding_notes
        from prefopt.evaluate.degenerate import check_answers
        from prefopt.evaluate.matched import match
        from prefopt.evaluate.verdicts import by_judge, by_reward, estimate, say
        from prefopt.evaluate.win_figures import doubts, win_figures

        mine, theirs = read_answers(self.answers), read_answers(self.baseline)
        notes = decoding_notes(self.answers, self.baseline)
        for name, path, answers in (("answers", self.answers, mine), ("baseline", self.baseline, theirs)):
            responses = [answer.response for answer in answers]
            notes += check_answers(responses, f"measure.{name} ({path})", self.allow_degenerate)[1]
        pairs, left_out = match(mine, theirs, self.allow_unmatched)
        examples = [pair.example for pair in pairs]
        if self.judge is None:
            verdicts = by_reward(place, examples)
        else:
            judge = self._judge()
            cost = estimate(judge, examples, self.price_per_million)
            say(cost.sentence())
            if self.estimate_only:
                told = {key: value for key, value in cost._asdict().items() if value is not None}
                figures = {f"estimate/{key}": Figure(float(value), count=len(pairs)) for key, value in told.items()}
                return Measured(figures, left_out=left_out, notes=(*notes, "An estimate: nothing was asked."))
            verdicts = by_judge(judge, place, examples)
        reasons = Counter(verdict.reason for verdict in verdicts if verdict.reason is not None)
        self._check_missing(pairs, verdicts)
        judged = [(pair, verdict) for pair, verdict in zip(pairs, verdicts) if verdict.preference is not None]
        figures = win_figures(
            [pair for pair, _ in judged],
            [verdict for _, verdict in judged],
            place.settings.resamples,
            place.settings.seed,
        )
        return Measured(
            figures,
            rows=[_row(pair, verdict) for pair, verdict in zip(pairs, verdicts)],
            left_out={**left_out, **reasons},
            notes=(self._who(place.settings.reward), *notes, *doubts(figures)),
        )

    def _judge(self) -> Judge:
        """Raises: SettingsError for settings that the judge refuses."""
        given = {key: value for key, value in (self.judge or {}).items() if key not in ("name", "mode")}
        judge: Judge = make_stage("score", {"name": "judge", "mode": "pairwise", **given}, "measure.judge")
        return judge

    def _who(self, reward: str) -> str:
        """Who played whom, and who judged: figures alone do not say it."""
        judge = f"the reward model {reward}" if self.judge is None else f"{self.judge['model']} at {self.judge['url']}"
        return (
            f"{self.answers} against {self.baseline}, judged by {judge}: win_rate is how often the first is preferred,"
            " a tie half; longer/win_rate how often the longer answer of two is, whoever gave it; count is questions."
        )

    def _check_missing(self, pairs: Sequence[Matched], verdicts: Sequence[Verdict]) -> None:
        missing = [(pair, verdict) for pair, verdict in zip(pairs, verdicts) if verdict.preference is None]
        if len(missing) > self.max_missing or len(missing) == len(pairs):
            pair, verdict = missing[0]
            raise UserError(
                f"{len(missing)} of {len(pairs)} questions have no verdict; the first is {pair.model.id}:"
                f" {verdict.reason}",
                f"measure.max_missing={len(missing)} leaves them out" if len(missing) < len(pairs) else "",
            )


def _row(pair: Matched, verdict: Verdict) -> dict[str, Any]:
    """One line of rows.jsonl."""
    row: dict[str, Any] = {
        "id": pair.model.id,
        "turn": pair.model.turn,
        "category": pair.category,
        "preference": verdict.preference,
        "length": len(pair.model.response),
        "baseline_length": len(pair.baseline.response),
    }
    if verdict.reason is not None:
        row["reason"] = verdict.reason
    if verdict.orders is not None:
        row["shown_first"], row["shown_second"] = verdict.orders
    if verdict.rewards is not None:
        row["reward"], row["baseline_reward"] = verdict.rewards
    return row
