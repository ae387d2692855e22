"""Where a text can be cut so that the ids of its end do not depend on what stands before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Boundaries:
    """Added tokens at which a tokenizer always cuts a text before it does anything else, with their ids."""

    tokens: tuple[tuple[str, int], ...]

    def last(self, text: str) -> tuple[int, int] | None:
        """Place of the last such token in `text`, and its id; None where there is none."""
        found = max(((text.rfind(token), number) for token, number in self.tokens), default=(-1, 0))
        return found if found[0] >= 0 else None


def boundaries_of(tokenizer: PreTrainedTokenizerBase) -> Boundaries:
    """The tokens of a chat template (and BOS, EOS) that are certain cuts.

    A fast tokenizer takes added tokens that are not normalised out of the raw text first, leftmost first, and encodes
    what lies between on its own. So ids behind one do not depend on the text before it - if it is found there at all.
    That is certain where no added token holds, overlaps or continues it, and it does not ask for a word's end.
    """
    if not tokenizer.is_fast or tokenizer.backend_tokenizer.encode_special_tokens:
        return Boundaries(())
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    used = f"{tokenizer.chat_template or ''}\n{tokenizer.bos_token}\n{tokenizer.eos_token}"
    everything = [token.content for token in added.values() if token.content]
    certain = [
        (token.content, number)
        for number, token in added.items()
        if token.content in used
        and token.content.strip() == token.content != ""
        and not token.normalized
        and not token.single_word
        and not any(_meets(token.content, other) for other in everything)
    ]
    return Boundaries(tuple(certain))


def _meets(token: str, other: str) -> bool:
    """Whether another token can lie over a part of this one in a text, this one over itself included."""
    if token != other and (token in other or other in token):
        return True
    shorter = min(len(token), len(other))
    return any(token[:n] == other[-n:] or other[:n] == token[-n:] for n in range(1, shorter))
