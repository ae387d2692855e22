"""Prompts to token ids, exactly as in training: what a policy answers is what it was, or will be, trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from prefopt.data.render import Renderer
from prefopt.data.rows import Unusable
from prefopt.data.tokenizer import special_prefix, with_prefix
from prefopt.records import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class PromptEncoder:
    """Encodes the prompt of an Example as `Encoder` encodes it before a response."""

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, example: Example) -> list[int]:
        """The prompt's ids.

        Raises: UserError for a conversation where there is no template; Unusable where the template refuses it, it is
            empty, or it begins with two BOS.
        """
        text = self._renderer(example, ()).prompt
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        found = with_prefix(list(ids), self._prefix, example.is_chat)
        if not found:
            raise Unusable("empty prompt", "no token from which the first response token could be predicted")
        bos = self.tokenizer.bos_token_id
        if bos is not None and found[:2] == [bos, bos]:
            raise Unusable("two BOS", "the text of the prompt begins with the BOS that the template writes")
        return found

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self.tokenizer)

    @cached_property
    def _prefix(self) -> list[int]:
        return special_prefix(self.tokenizer)
