"""Who is better of two answers: by a judge on a server, or by a reward model; and what the first costs, beforehand."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from prefopt.evaluate.measure import EvalPlace
from prefopt.pairs.score.judge import UNREADABLE, Judge
from prefopt.pairs.score.reward import Reward
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import Place
from prefopt.records import Example

_CHARACTERS = 4
"""Of a token, about, in English text."""


class Verdict(NamedTuple):
    """preference: what the model's answer gets, 0 to 1; None where there is no verdict, for the reason given.

    orders: what it gets when shown first and when shown second; None of a reward model. rewards: of both answers, else
    None.
    """

    preference: float | None
    reason: str | None
    orders: tuple[float, float] | None = None
    rewards: tuple[float, float] | None = None


class Estimate(NamedTuple):
    """calls: requests, none of them a retry. tokens_in: by 4 characters a token. tokens_out: at most. cost: of both at
    most, in the currency of the prices, or None without prices."""

    calls: int
    tokens_in: int
    tokens_out: int
    cost: float | None

    def sentence(self) -> str:
        """For the user, before the first call."""
        cost = "" if self.cost is None else f", at most {self.cost:.2f} in the currency of price_per_million"
        return (
            f"the judge will be asked {self.calls:,} times: about {self.tokens_in:,} tokens to it, at most"
            f" {self.tokens_out:,} from it{cost} (what was answered before is not asked again)"
        )


def estimate(judge: Judge, examples: Sequence[Example], prices: Sequence[float] | None) -> Estimate:
    """What asking costs. prices: of a million tokens to the judge and of a million from it."""
    questions = judge.questions(examples)
    tokens_in = sum(len(question) for question in questions) // _CHARACTERS
    tokens_out = len(questions) * judge.max_tokens
    cost = None if prices is None else (tokens_in * prices[0] + tokens_out * prices[1]) / 1e6
    return Estimate(len(questions), tokens_in, tokens_out, cost)


def by_judge(judge: Judge, place: EvalPlace, examples: Sequence[Example]) -> list[Verdict]:
    """Both orders of each; a question without two readable answers has no verdict. Answers are kept in the folder."""
    verdicts = []
    for both in judge.open_orders(_place(place))(examples):
        if both.shown_first is None or both.shown_second is None:
            verdicts.append(Verdict(None, both.reason or UNREADABLE))
        else:
            orders = both.shown_first, both.shown_second
            verdicts.append(Verdict(sum(orders) / 2, None, orders))
    return verdicts


def by_reward(place: EvalPlace, examples: Sequence[Example]) -> list[Verdict]:
    """1 for the answer of the higher reward; equal rewards are a tie."""
    verdicts = []
    for judged in Reward().open(_place(place))(examples):
        mine, theirs = judged.scores
        if mine is None or theirs is None:
            verdicts.append(Verdict(None, next(filter(None, judged.reasons), "not scored")))
        else:
            preference = 0.5 if mine == theirs else float(mine > theirs)
            verdicts.append(Verdict(preference, None, None, (mine, theirs)))
    return verdicts


def say(line: str) -> None:
    """A line for the user; figures go to stdout."""
    print(line, file=sys.stderr, flush=True)


def _place(place: EvalPlace) -> Place:
    s = place.settings
    settings = PairsSettings(
        reward=s.reward, chat_template=s.chat_template, seed=s.seed, dtype=s.dtype, tokens_per_batch=s.tokens_per_batch
    )
    return Place(settings, place.device, str(place.folder / "notes"), say)
