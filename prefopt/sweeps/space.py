"""What a sweep may choose from, in Hydra's words: lists, choice(), range(), interval(), tag(log, interval())."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from prefopt.errors import UserError
from prefopt.overrides import parse
from prefopt.sweeps.plan import Combination

DRAWS_PER_RUN = 1000
"""How often is drawn for one run that is not there yet, before the space counts as used up."""


@dataclass(frozen=True)
class Dimension:
    """One key that varies. key: as it was written. values: the texts of a discrete one, else None; is_ordered: by size.

    low, high: ends of an interval, both included; is_whole: of whole numbers; is_log: even in the logarithm.
    """

    key: str
    values: tuple[str, ...] | None = None
    is_ordered: bool = False
    low: float = 0.0
    high: float = 0.0
    is_whole: bool = False
    is_log: bool = False

    def text(self, value: Any) -> str:
        """The override of a value: six digits of a fraction, which a recipe can be read with."""
        if self.values is not None or self.is_whole:
            return f"{self.key}={value}"
        return f"{self.key}={min(self.high, max(self.low, float(f'{value:.6g}')))!r}"

    def draw(self, source: random.Random) -> Any:
        """A value at random."""
        if self.values is not None:
            return source.choice(self.values)
        if self.is_log:
            value = math.exp(source.uniform(math.log(self.low), math.log(self.high)))
            return min(int(self.high), max(int(self.low), round(value))) if self.is_whole else value
        return source.randint(int(self.low), int(self.high)) if self.is_whole else source.uniform(self.low, self.high)


@dataclass(frozen=True)
class Space:
    """Words of a command line, each as it is or a dimension, in their order."""

    places: tuple[str | Dimension, ...]

    @property
    def dimensions(self) -> list[Dimension]:
        """Those that vary."""
        return [place for place in self.places if isinstance(place, Dimension)]

    def combination(self, values: Sequence[Any]) -> Combination:
        """One run, of a value for each dimension."""
        varied = [dimension.text(value) for dimension, value in zip(self.dimensions, values, strict=True)]
        left = iter(varied)
        return Combination([place if isinstance(place, str) else next(left) for place in self.places], varied)

    def draw(self, count: int, seed: int) -> list[Combination]:
        """Different runs, drawn at random; the first ones do not depend on how many are drawn.

        Raises: UserError where there are not that many.
        """
        sizes = [len(dimension.values) for dimension in self.dimensions if dimension.values is not None]
        if len(sizes) == len(self.dimensions) and prod(sizes) < count:
            raise UserError(
                f"hydra.sweeper.n_trials={count}: there are only {prod(sizes)} different runs",
                "hydra/sweeper=grid runs them all",
            )
        found: dict[tuple[str, ...], Combination] = {}
        for number in range(count * DRAWS_PER_RUN):
            values = [d.draw(random.Random(f"{seed}/{number}/{d.key}")) for d in self.dimensions]
            drawn = self.combination(values)
            found.setdefault(tuple(drawn.varied), drawn)
            if len(found) == count:
                return list(found.values())
        raise UserError(f"hydra.sweeper.n_trials={count}: the intervals are too narrow for so many different runs")


def read_space(words: list[str]) -> Space:
    """The space that the words of a command line mean.

    Raises: UserError where nothing varies, or by something that cannot be drawn from.
    """
    places = tuple(_read(word) for word in words)
    if not any(isinstance(place, Dimension) for place in places):
        raise UserError(
            "-m: no key varies", "for instance loss.beta=interval(1,5), tag(log,interval(1e-7,1e-5)) or 1,2,5"
        )
    return Space(places)


def _read(word: str) -> str | Dimension:
    from hydra.core.override_parser.types import Glob, IntervalSweep, RangeSweep

    override = parse(word)
    if not override.is_sweep_override():
        return word
    key = override.get_key_element()
    value: Any = override.value()
    if isinstance(value, Glob) or any(isinstance(one, IntervalSweep) for one in getattr(value, "list", None) or []):
        raise UserError(f"{word}: cannot be drawn from", "a list, choice(), range() or one interval()")
    if getattr(value, "shuffle", False):
        raise UserError(f"{word}: shuffle has no effect, because values are drawn", "leave it out")
    unknown = value.tags - ({"log"} if isinstance(value, IntervalSweep) else set())
    if unknown:
        raise UserError(f"{word}: tag {sorted(unknown)[0]} has no effect here", "tag(log, interval(LOW,HIGH))")
    if not isinstance(value, IntervalSweep):
        return Dimension(key, tuple(override.sweep_string_iterator()), isinstance(value, RangeSweep))
    low, high = value.start, value.end
    assert low is not None
    assert high is not None
    if not low < high:
        raise UserError(f"{word}: an interval goes from a smaller to a larger number")
    if "log" in value.tags and low <= 0:
        raise UserError(f"{word}: a logarithm needs an interval above 0")
    is_whole = isinstance(low, int) and isinstance(high, int)
    return Dimension(key, low=low, high=high, is_whole=is_whole, is_log="log" in value.tags)
