"""A format found in a file: which needs of a method it serves, and how a row of it becomes an `Example`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prefopt.data.extras import (
    Holds,
    labelled_by_score,
    margin_columns,
    target_of,
    with_label,
    with_margins,
    with_pair_margin,
    with_score,
)
from prefopt.data.format_pairs import Columns, Parsed, Values
from prefopt.data.rows import LABELS, Row, label_of
from prefopt.records import Candidate, Example

SCORES = frozenset({"scores", "probabilities"})
"""Needs that ask for the numbers of the file, and not for their order alone."""
# What every format serves that serves the need it is made from: the encoder makes these.
_MADE = frozenset({"demonstrations", "verdicts", "comparisons"})


@dataclass(frozen=True)
class Format:
    """One way to write rows.

    name: what `format:` says. shape: its columns, for messages. holds: what a row has. gives: which needs of a method
    it always serves. extras: further needs, each with the sets of columns of which any one serves it. matches: whether
    a file with these columns and sample values is one. read: a row's values -> `Parsed`. uses: every column that `read`
    may look at.
    """

    name: str
    shape: str
    holds: Holds
    gives: frozenset[str]
    extras: Mapping[str, tuple[Columns, ...]]
    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Values, Columns], Parsed]
    uses: Columns


@dataclass(frozen=True)
class Recognised:
    """A format found in a file.

    columns: the file's, from its first rows. filled: those with a value in one of these rows; what the candidates of
    our own records hold is "candidates.score" and so on.
    """

    format: Format
    columns: Columns = field(default_factory=frozenset)
    filled: Columns = field(default_factory=frozenset)

    def gives(self, need: str, needs: Columns) -> bool:
        """Whether the file can serve one need of a method with these needs."""
        if need in _MADE or need in self.format.gives or (need == "labels" and "demonstrations" in needs):
            return True
        return any(self.filled.issuperset(columns) for columns in self.format.extras.get(need, ()))

    def columns_unused(self, needs: Columns = frozenset(), margins: tuple[str, ...] = ()) -> list[str]:
        """Columns that are not looked at. needs, margins: as of `example`."""
        used = set(self.format.uses)
        if "targets" in needs:
            used.add(self._target)
        if self.format.holds == "one" and (needs & SCORES or ("labels" in needs and self._may_label_by_score)):
            used.add("score")
        if "margins" in needs:
            used |= {column for name in margins for column in self.margin_columns(name)}
            used |= {"margin"} if self.format.holds == "pair" and not margins else set()
        return sorted(self.columns - used)

    def margin_columns(self, name: str) -> tuple[str, ...]:
        """The columns that hold this objective's rewards: none where the file lacks them."""
        return margin_columns(name, self.format.holds, self.columns)

    def is_labelled_by_score(self, row: Row, needs: Columns) -> bool:
        """Whether a method that needs labels gets that of this lone response from its score: files with a column of
        labels have them there, and may lack some."""
        has_score = label_of(row.value) is None and row.value.get("score") is not None
        return has_score and "labels" in needs and self._may_label_by_score

    def example(self, row: Row, needs: Columns = frozenset(), margins: tuple[str, ...] = ()) -> Example:
        """The row as text.

        needs: the method's; columns that none of them asks for are not looked at. margins: names of objectives whose
        rewards are columns; without any, those that the rows bring themselves.

        Raises: Unusable where it does not fit the format.
        """
        columns = self.columns
        if "demonstrations" in needs and label_of(row.value) is None:
            columns = columns.difference(LABELS)
        parsed = self.format.read(row.value, columns)
        candidates = parsed.candidates
        if self.format.holds == "one":
            candidates = (self._judged(candidates[0], row, needs),)
        if "margins" in needs and margins:
            candidates = with_margins(candidates, row.value, margins, self.format.holds)
        elif "margins" in needs and self.format.holds == "pair":
            candidates = with_pair_margin(candidates, row.value)
        target = target_of(row.value, self._target) if "targets" in needs else None
        return Example(row.id, parsed.prompt, candidates, parsed.is_chat, target)

    @property
    def _target(self) -> str:
        return "target" if self.format.name == "examples" else "y_ref"

    @property
    def _may_label_by_score(self) -> bool:
        return self.format.holds == "one" and self.columns.isdisjoint(LABELS)

    def _judged(self, candidate: Candidate, row: Row, needs: Columns) -> Candidate:
        """A lone response with the score and the label of its row, as far as the needs ask for them."""
        if "labels" in needs:  # a column that only later rows have is not among the file's
            candidate = with_label(candidate, row.value)
        by_score = self.is_labelled_by_score(row, needs)
        if needs & SCORES or by_score:
            candidate = with_score(candidate, row.value)
        return labelled_by_score(candidate) if by_score else candidate
