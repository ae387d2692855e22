"""Candidates from a server that speaks OpenAI's protocol: vLLM, SGLang, llama.cpp, a vendor's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from prefopt.pairs.chance import key_of, number_of
from prefopt.pairs.server_settings import ServerSettings
from prefopt.pairs.stages import Generated, LeftOut, Place
from prefopt.records import Candidate, Example

if TYPE_CHECKING:
    from prefopt.pairs.server import Answer, Refusal, Request, Server

__all__ = ["FromServer"]

EMPTY = "the answer is empty"
REFUSED = "the server refuses the prompt"
NONE_LEFT = "no answer is left"


@dataclass(frozen=True)
class FromServer(ServerSettings):
    """Samples of a model that a server holds: n requests a prompt, each with a seed of its own.

    Conversations go to chat/completions as they are, and the server's own chat template applies; plain prompts go to
    completions. A seed is decided by the prompt's words, the command's seed and the sample's number, so that a server
    that honours it gives the same samples again. Answers are kept in the notes as they arrive: a killed command asks
    for none of them twice. An answer that `max_new_tokens` cut is kept, with source.finish = length.

    Settings of the connection: see ServerSettings. `max_prompt_tokens` is not looked at, since only the server knows
    its tokens; what it refuses is left out.

    n: candidates a prompt. temperature, top_p: of the sampling; 0 is greedy, and then n must be 1.
    max_new_tokens: the longest answer, tokens of the server's model. stop: texts that end an answer; up to 4 with most.
    """

    n: int = 8
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    stop: list[str] = field(default_factory=list)
    needs_policy: ClassVar[bool] = False
    works_on_responses: ClassVar[bool] = False
    own_fields: ClassVar[Mapping[str, str]] = {
        "messages": "prefopt",
        "prompt": "prefopt",
        "seed": "seed",
        "temperature": "temperature",
        "top_p": "top_p",
        "max_tokens": "max_new_tokens",
        "stop": "stop",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sampling(self.n, self.temperature, self.top_p, self.max_new_tokens, self.stop)

    @property
    def answers(self) -> int:
        """To each prompt."""
        return self.n

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Generated]]:
        """The function that answers prompts. Raises: UserError or RunError for a server that cannot be used."""
        from prefopt.pairs.server import Server

        server = Server(self, place)
        server.open()

        def generate(examples: Sequence[Example]) -> list[Generated]:
            seeds = [[sample_seed(place.settings.seed, example, i) for i in range(self.n)] for example in examples]
            requests = [self._request(server, e, seed) for e, row in zip(examples, seeds) for seed in row]
            answers = server.each(server.ask, requests)
            server.check_refusals(answers)
            return [
                self._generated(example, row, answers[self.n * number : self.n * (number + 1)])
                for number, (example, row) in enumerate(zip(examples, seeds))
            ]

        return generate

    def _request(self, server: Server, example: Example, seed: int) -> Request:
        from prefopt.pairs.server import CHAT, PLAIN

        own: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_new_tokens,
            "seed": seed,
            "stop": self.stop or None,
        }
        if not example.is_chat:
            return server.request(PLAIN, {"prompt": example.prompt[0].content, **own})
        messages = [{"role": message.role, "content": message.content} for message in example.prompt]
        return server.request(CHAT, {"messages": messages, **own})

    def _generated(self, example: Example, seeds: Sequence[int], answers: Sequence[Answer | Refusal]) -> Generated:
        from prefopt.pairs.server import Refusal

        refused = [answer for answer in answers if isinstance(answer, Refusal)]
        if len(refused) == len(answers):
            return Generated((), (LeftOut(example.id, REFUSED, refused[0].words),))
        candidates = []
        left_out = []
        for seed, answer in zip(seeds, answers):
            if isinstance(answer, Refusal):
                left_out.append(LeftOut(example.id, REFUSED, answer.words, ""))
                continue
            source = {"server": self.url, "model": self.model, "seed": seed, "finish": answer.finish}
            if answer.text.strip():
                candidates.append(Candidate(answer.text, source=source))
            else:
                left_out.append(LeftOut(example.id, EMPTY, f"seed {seed}, finish {answer.finish}", answer.text))
        return with_candidates(example, candidates, left_out)


def sample_seed(seed: int, example: Example, number: int) -> int:
    """31 bits for a prompt's sample number `number` (from 0)."""
    return number_of(seed, key_of(example), number) % 2**31


def with_candidates(example: Example, candidates: Sequence[Candidate], left_out: Sequence[LeftOut]) -> Generated:
    """A prompt with its candidates; left out itself where there is none."""
    if not candidates:
        return Generated((), (*left_out, LeftOut(example.id, NONE_LEFT)))
    return Generated((replace(example, candidates=tuple(candidates)),), tuple(left_out))


def check_sampling(n: int, temperature: float, top_p: float, max_new_tokens: int, stop: Sequence[str]) -> None:
    """Raises: ValueError for a setting of sampling that cannot be, or that would give one answer n times."""
    if n < 1:
        raise ValueError(f"n must be 1 or more, not {n}")
    if temperature < 0:
        raise ValueError(f"temperature must be 0 or more, not {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")
    if temperature == 0 and n > 1:
        raise ValueError(f"n must be 1 with temperature=0, which gives one answer {n} times")
    if temperature == 0 and top_p < 1:
        raise ValueError("top_p has no effect with temperature=0; leave it at 1")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be 1 or more, not {max_new_tokens}")
    if not all(stop):
        raise ValueError("stop holds an empty text, which every answer begins with")
