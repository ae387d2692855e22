"""A language model on a server as the judge: a grade for each candidate, or who is better of every two."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, count
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from prefopt.fill import one_of
from prefopt.pairs.comparisons import judged_by_wins
from prefopt.pairs.prompt_text import whole_prompt
from prefopt.pairs.server_settings import ServerSettings
from prefopt.pairs.stages import Asked, Judged, Place
from prefopt.pairs.verdict_lines import BUILTIN, fill_in, read_score, read_template, read_verdict
from prefopt.records import Example

if TYPE_CHECKING:
    from prefopt.pairs.server import Server

__all__ = ["Judge"]

UNREADABLE = "judge's answer cannot be read"
REFUSED = "judge refuses the request"

_REMINDER = {
    "scalar": "That cannot be read. End with one line such as: Score: <number>",
    "pairwise": "That cannot be read. End with one of these lines: Verdict: A, Verdict: B, Verdict: tie",
}


class BothOrders(NamedTuple):
    """What a judge said of two candidates. shown_first, shown_second: what the first of them gets (1, 0.5 or 0) when it
    is shown first, and when it is shown second; None where the answer cannot be read. reason: why, or None.
    """

    shown_first: float | None
    shown_second: float | None
    reason: str | None


class _Verdict(NamedTuple):
    """What one question came to.

    value: a grade, or what the first of two gets; None where there is none, for the reason given. said: the last words.
    """

    value: float | None
    reason: str | None
    said: str


@dataclass(frozen=True)
class Judge(ServerSettings):
    """An LLM judge (Zheng et al. 2023, arXiv 2306.05685) behind a server that speaks OpenAI's protocol.

    mode = scalar: one request a candidate. The score is the number on the last line such as "Score: 4" of the answer.
    mode = pairwise: for every two candidates two requests, each of them first once. What the first gets is 1 for
        "Verdict: A", 0 for B and 0.5 for a tie; P(i beats j) is the mean over both orders, so that a judge that always
        takes the first says 0.5. The score is the mean of P(i beats j) over the others. Candidates of equal words get
        0.5 unasked. k candidates cost k * (k - 1) requests.

    An answer without such a line is followed up in the same conversation, `retries_malformed` times; then it is counted
    as "judge's answer cannot be read". In pairwise mode as few candidates as need be go for that, so that of the others
    each has met each.

    Answers are kept in the notes as they arrive, by all that is sent: a killed command asks for nothing twice, and the
    same command once more for nothing at all.

    Settings of the connection: see ServerSettings.

    mode: scalar or pairwise.
    template: quality (scalar), curation (scalar: the five grades of self-curation in instruction back-translation,
        Li et al. 2023, arXiv 2308.06259, in words of ours), comparison (pairwise), or the path of a text file with
        {prompt} and {response}, or {prompt}, {first} and {second}, that asks for such a line. Empty: quality or
        comparison, by the mode. A conversation is filled in turn by turn, the role before each.
    lowest, highest: ends of the scale of a template of your own; a number beyond them cannot be read. scalar only.
    temperature: of the judge; 0: its likeliest answer. max_tokens: of its answer, reasons included.
    retries_malformed: how often an answer that cannot be read is followed up.
    """

    mode: str = one_of("scalar", "pairwise")
    template: str = ""
    lowest: float = 1.0
    highest: float = 5.0
    temperature: float = 0.0
    max_tokens: int = 1024
    retries_malformed: int = 2
    own_fields: ClassVar[Mapping[str, str]] = {
        "messages": "prefopt",
        "temperature": "temperature",
        "max_tokens": "max_tokens",
    }

    uses: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("scalar", "pairwise"):
            raise ValueError(f"mode must be scalar or pairwise, not {self.mode!r}")
        if BUILTIN.get(self.template, self.mode) != self.mode:
            raise ValueError(f"template={self.template} is for mode={BUILTIN[self.template]}, not {self.mode}")
        if not 0 <= self.lowest < self.highest:
            raise ValueError(f"lowest must be 0 or more and below highest, not {self.lowest:g} and {self.highest:g}")
        if (self.lowest, self.highest) != (1.0, 5.0) and (self.mode == "pairwise" or self._builtin):
            raise ValueError("lowest and highest are for a template of your own in scalar mode; leave them at 1 and 5")
        if self.temperature < 0:
            raise ValueError(f"temperature must be 0 or more, not {self.temperature}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be 1 or more, not {self.max_tokens}")
        if self.retries_malformed < 0:
            raise ValueError(f"retries_malformed must be 0 or more, not {self.retries_malformed}")

    @property
    def _builtin(self) -> bool:
        return not self.template or self.template in BUILTIN

    def check(self, asked: Asked) -> None:
        """Raises: UserError for a template that cannot be used."""
        self._template()

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Judged]]:
        """The function that judges. Raises: UserError or RunError for a template or a server that cannot be used."""
        from prefopt.pairs.server import Server

        template = self._template()
        server = Server(self, place)
        server.open()
        return lambda examples: (self._graded if self.mode == "scalar" else self._compared)(server, template, examples)

    def _template(self) -> str:
        return read_template(self.template or ("quality" if self.mode == "scalar" else "comparison"), self.mode)

    def open_orders(self, place: Place) -> Callable[[Sequence[Example]], list[BothOrders]]:
        """The function that compares the two candidates of each Example, and tells the two orders apart; mode=pairwise.

        Raises: as `open`.
        """
        from prefopt.pairs.server import Server

        template = self._template()
        server = Server(self, place)
        server.open()
        return lambda examples: self._in_both_orders(server, template, examples)

    def questions(self, examples: Sequence[Example]) -> list[str]:
        """What mode=pairwise asks of these Examples, each question once, no retries. Raises: as `read_template`."""
        template = self._template()
        asked = [self._comparisons(template, example) for example in examples]
        return list(dict.fromkeys(question for row in asked for both in row.values() for question in both))

    def _in_both_orders(self, server: Server, template: str, examples: Sequence[Example]) -> list[BothOrders]:
        asked = [self._comparisons(template, example).get((0, 1)) for example in examples]
        verdicts = self._verdicts(server, [question for both in asked if both is not None for question in both])
        found = []
        for both in asked:
            if both is None:  # equal words, which nobody need be asked about
                found.append(BothOrders(0.5, 0.5, None))
                continue
            one, other = (verdicts[question] for question in both)
            second = None if other.value is None else 1 - other.value
            found.append(BothOrders(one.value, second, min(filter(None, (one.reason, other.reason)), default=None)))
        return found

    def _graded(self, server: Server, template: str, examples: Sequence[Example]) -> list[Judged]:
        questions = [
            [fill_in(template, {"prompt": whole_prompt(e), "response": c.text}) for c in e.candidates] for e in examples
        ]
        verdicts = self._verdicts(server, [question for row in questions for question in row])
        return [
            Judged(
                tuple(verdicts[question].value for question in row),
                tuple(verdicts[question].reason for question in row),
                details=tuple({"judge": verdicts[question].said} for question in row),
            )
            for row in questions
        ]

    def _compared(self, server: Server, template: str, examples: Sequence[Example]) -> list[Judged]:
        asked = [self._comparisons(template, example) for example in examples]
        verdicts = self._verdicts(server, [question for row in asked for both in row.values() for question in both])
        judged = []
        for example, row in zip(examples, asked):
            wins: dict[tuple[int, int], float | None] = {}
            reasons: set[str] = set()
            for pair in combinations(range(len(example.candidates)), 2):
                if pair not in row:
                    wins[pair] = 0.5
                    continue
                one, other = (verdicts[question] for question in row[pair])
                is_whole = one.value is not None and other.value is not None
                wins[pair] = (one.value + 1 - other.value) / 2 if is_whole else None  # type: ignore[operator]
                reasons.update(verdict.reason for verdict in (one, other) if verdict.reason)
            judged.append(judged_by_wins(len(example.candidates), wins, min(reasons, default=UNREADABLE)))
        return judged

    def _comparisons(self, template: str, example: Example) -> dict[tuple[int, int], tuple[str, str]]:
        """(i, j) with i < j to the question with i first and that with j first; none for candidates of equal words."""
        texts = [candidate.text for candidate in example.candidates]

        def question(first: int, second: int) -> str:
            values = {"prompt": whole_prompt(example), "first": texts[first], "second": texts[second]}
            return fill_in(template, values)

        pairs = combinations(range(len(texts)), 2)
        return {(i, j): (question(i, j), question(j, i)) for i, j in pairs if texts[i] != texts[j]}

    def _verdicts(self, server: Server, questions: Sequence[str]) -> dict[str, _Verdict]:
        from prefopt.pairs.server import CHAT, Answer, Refusal

        def read(said: str) -> float | None:
            return read_score(said, self.lowest, self.highest) if self.mode == "scalar" else read_verdict(said)

        def verdict(question: str) -> tuple[_Verdict, Answer | Refusal]:
            messages = [{"role": "user", "content": question}]
            for attempt in count():
                own: dict[str, Any] = {
                    "messages": messages,
                    "temperature": self.temperature,
                    "max_tokens": self.max_tokens,
                }
                answer = server.ask(server.request(CHAT, own)._replace(attempt=attempt))
                if isinstance(answer, Refusal):
                    return _Verdict(None, REFUSED, answer.words), answer
                value = read(answer.text)
                if value is not None or attempt == self.retries_malformed:
                    return _Verdict(value, UNREADABLE if value is None else None, answer.text), answer
                if answer.text.strip():  # a judge at temperature 0 would say the very same to the very same
                    messages = [
                        {"role": "user", "content": question},
                        {"role": "assistant", "content": answer.text},
                        {"role": "user", "content": _REMINDER[self.mode]},
                    ]
            raise AssertionError

        found = server.each(verdict, questions)
        server.check_refusals([answer for _, answer in found])
        return {question: one for question, (one, _) in zip(questions, found)}
