"""What the stages of `prefopt pairs` hand to one another, and what each kind of stage promises.

A stage is a frozen dataclass of settings. `open` loads what it needs and gives the function that does the work on the
prompts of one chunk; what that function gives for a prompt depends on the prompt, the settings and the seed, and
neither on the other chunks nor on which process works. Imports nothing heavy.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from prefopt.records import Candidate, Example

if TYPE_CHECKING:
    from prefopt.pairs.settings import PairsSettings


@dataclass(frozen=True)
class Place:
    """Where a stage works, besides its own settings.

    settings: of the whole command. device: "cpu" or "cuda:0". notes: a folder that outlives the process, where a stage
    may keep what costs money to ask for again (a judge's answers). say: prints a line for the user.
    """

    settings: PairsSettings
    device: str
    notes: str
    say: Callable[[str], None] = field(default=print)


@dataclass(frozen=True)
class Asked:
    """What a stage is told before anything is made. settings: of the whole command.

    longest_prompts: reads the prompts, and gives some of them, those of the most characters among them.
    """

    settings: PairsSettings
    longest_prompts: Callable[[], Sequence[Example]]


class LeftOut(NamedTuple):
    """Something that is not used. id: of the prompt. reason: one of a few phrases, by which they are counted.

    detail: what was seen. text: the candidate that is left out; None where the whole prompt is.
    """

    id: str
    reason: str
    detail: str = ""
    text: str | None = None


class Generated(NamedTuple):
    """What became of a prompt: its Examples with candidates (one; none where it is left out), and what was left out."""

    examples: tuple[Example, ...]
    left_out: tuple[LeftOut, ...] = ()


class Judged(NamedTuple):
    """What the candidates of an Example are worth.

    scores [k]: higher is better; None where a candidate could not be judged. reasons [k]: for those a phrase by which
    they are counted, else None. wins [k][k]: P(i beats j) of a judge that compares two, with 0.5 on the diagonal; None
    of one that scores each alone. details [k]: what else is worth keeping of each, as JSON; empty for nothing.
    """

    scores: tuple[float | None, ...]
    reasons: tuple[str | None, ...]
    wins: tuple[tuple[float, ...], ...] | None = None
    details: tuple[dict[str, Any], ...] = ()


class Selected(NamedTuple):
    """What is taken of an Example, as places among its candidates.

    pairs: (chosen, rejected), for stages that write pairs. kept: for those that write lists or single responses.
    reason: why there is nothing, by which prompts are counted; empty where there is something.
    """

    pairs: tuple[tuple[int, int], ...] = ()
    kept: tuple[int, ...] = ()
    reason: str = ""


class Generate(Protocol):
    """Candidates for prompts.

    needs_policy: whether `policy=` must be given. works_on_responses: whether the responses of the file are what it
    works on, so that a prompt may come again with others.
    """

    needs_policy: ClassVar[bool]
    works_on_responses: ClassVar[bool]

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Generated]]:
        """The function that answers the prompts of a chunk, in their order.

        Raises: UserError for what cannot be had (a model, a server), before anything is generated.
        """


class Score(Protocol):
    """Worth of candidates. uses: which of the settings policy, reward and reference it reads, with these settings."""

    @property
    def uses(self) -> frozenset[str]:
        """Keys of models that must be given."""

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Judged]]:
        """The function that judges the candidates of the Examples of a chunk, in their order.

        Raises: UserError for what cannot be had, before anything is scored.
        """


@runtime_checkable
class Checks(Protocol):
    """A stage of any kind that can tell without loading a model that it would not do: what it finds wrong has then cost
    nothing, and not the answers to all prompts."""

    def check(self, asked: Asked) -> None:
        """Raises: UserError for a model, a file or a limit that `open` would refuse, or that leaves no answer."""


@runtime_checkable
class CountsAnswers(Protocol):
    """A stage of `generate` that can tell how many answers it asks for. answers: of each policy, to each prompt."""

    @property
    def answers(self) -> int:
        """0 where none is made."""


class Select(Protocol):
    """Which candidates are trained on. Every candidate has a score; `wins_of` gives what a pairwise judge said.

    writes: pairs: a row per pair (prompt, chosen, rejected); ranked: a row per prompt with its responses and scores;
    sft: a row per response. decided_by: what makes one of a pair the better: its score, or, where a pairwise judge
    spoke, the probability that it wins against the other, which then is the score of its row.
    """

    writes: ClassVar[Literal["pairs", "ranked", "sft"]]
    decided_by: ClassVar[Literal["scores", "wins"]]

    def __call__(self, example: Example, chance: random.Random) -> Selected:
        """What is taken. chance: decided by the prompt's words and the seed alone."""


GIVEN = "given"
"""Key of `Candidate.source`: True where this response stood in the file of the prompts."""

UNFINISHED = "answer not finished"
"""Why an answer is left out that `generate.max_new_tokens` cut."""

STOPPED = "stopped"
"""Key of `Candidate.source`: False where `generate.max_new_tokens` cut this answer before the policy ended it."""

FINISH, CUT = "finish", "length"
"""Key of `Candidate.source` where a server or vLLM answered: why it ended, and what is said of one that was cut."""

WINS = "wins"
"""Key of `Candidate.source`: P(this candidate beats each of the others), in their order."""


def wins_of(candidates: Sequence[Candidate]) -> list[list[float]] | None:
    """P(i beats j), [k][k], where a pairwise judge compared the candidates; None where none did."""
    rows = [None if c.source is None else c.source.get(WINS) for c in candidates]
    return None if any(row is None for row in rows) else [list(row) for row in rows if row is not None]
