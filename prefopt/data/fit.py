"""Lengths: what happens to a row that is longer than the limits, as `data.too_long` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from prefopt.data.rows import Unusable
from prefopt.errors import UserError


class Fitted(NamedTuple):
    """Token ids within the limits. num_eos_lost: responses that were cut and so no longer end in EOS."""

    prompt: list[int]
    responses: list[list[int]]
    prompt_cut: bool = False
    num_eos_lost: int = 0


@dataclass(frozen=True)
class Limits:
    """max_length: prompt and longest response together, in tokens. too_long: what to do with rows beyond it.

    drop: leave the row out. truncate_prompt: keep the end of the prompt (and a BOS at its head), the same for all
    responses of the row. truncate_response: cut the end of responses; at least one token stays. error: stop.
    """

    max_length: int
    max_prompt_length: int | None
    too_long: str

    def fit(self, prompt: list[int], responses: list[list[int]], bos: int | None, row: str) -> Fitted:
        """The row within the limits.

        Raises: Unusable where it is left out, UserError where `too_long` is error; both say the numbers.
        """
        longest = max(map(len, responses))
        excess = self._excess(len(prompt), longest)
        if excess is None:
            return Fitted(prompt, responses)
        reason, detail = excess
        if self.too_long == "error":
            hint = "raise the limit, or set data.too_long to drop, truncate_prompt or truncate_response"
            raise UserError(f"{row}: {reason}: {detail}", hint)
        if self.too_long == "truncate_prompt":
            return Fitted(self._cut_prompt(prompt, longest, bos, detail), responses, prompt_cut=True)
        if self.too_long == "truncate_response":
            return self._cut_responses(prompt, responses, reason, detail)
        raise Unusable(reason, detail)

    def _excess(self, prompt: int, longest: int) -> tuple[str, str] | None:
        if self.max_prompt_length is not None and prompt > self.max_prompt_length:
            return "prompt too long", f"{prompt} tokens, max_prompt_length {self.max_prompt_length}"
        if prompt + longest > self.max_length:
            total = f"prompt {prompt} + longest response {longest} = {prompt + longest} tokens"
            return "too long", f"{total}, max_length {self.max_length}"
        return None

    def _cut_prompt(self, prompt: list[int], longest: int, bos: int | None, detail: str) -> list[int]:
        room = self.max_length - longest
        if self.max_prompt_length is not None:
            room = min(room, self.max_prompt_length)
        head = prompt[:1] if prompt and prompt[0] == bos else []
        if room < len(head) + 1:
            raise Unusable("response leaves no room for the prompt", detail)
        return head + prompt[len(prompt) - (room - len(head)) :]

    def _cut_responses(self, prompt: list[int], responses: list[list[int]], reason: str, detail: str) -> Fitted:
        if reason == "prompt too long":
            raise Unusable(reason, detail)
        room = self.max_length - len(prompt)
        if room < 1:
            raise Unusable("prompt leaves no room", detail)
        cut = [response[:room] for response in responses]
        return Fitted(prompt, cut, num_eos_lost=sum(len(r) > room for r in responses))
