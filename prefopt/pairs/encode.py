"""Candidates as token ids, exactly as training encodes them: by training's own encoder, one row for each candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from prefopt.data.encode import Encoder
from prefopt.data.fit import Limits
from prefopt.data.formats import FORMATS
from prefopt.data.pairing import Pairing
from prefopt.data.recognised import Recognised
from prefopt.data.rows import Row
from prefopt.data.tokenizer import builtin_templates
from prefopt.errors import UserError
from prefopt.pairs.stages import Judged
from prefopt.records import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANY_LENGTH = 2**31
_OWN_RECORDS = Recognised(FORMATS["examples"], frozenset({"prompt", "candidates", "is_chat"}))
_VERDICTS = {
    "verdicts": frozenset({"labels", "verdicts"}),
    "comparisons": frozenset({"pairs", "comparisons"}),
}
"""The needs of the methods that train rankers."""


class Tokens(NamedTuple):
    """The candidates of an Example as token ids.

    id: of the Example. prompt: its ids, the same for every candidate. responses [k]: ids, EOS included; None where a
    candidate cannot be encoded. reasons [k]: why it cannot, a phrase by which candidates are counted, else None.
    """

    id: str
    prompt: list[int]
    responses: tuple[list[int] | None, ...]
    reasons: tuple[str | None, ...]

    def judged(self, scores: Sequence[float | None], details: Sequence[Mapping[str, Any] | None] = ()) -> Judged:
        """What is handed on where these are the numbers of the candidates."""
        return Judged(tuple(scores), self.reasons, details=tuple(dict(d or {}) for d in details))


class CandidateEncoder:
    """Encodes with one model's tokenizer and chat template.

    max_length: tokens of prompt and response together, as far as the model has positions; None: any number.
    model: as messages name it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int | None, model: str) -> None:
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"{model}: its tokenizer defines no EOS token to close a response with",
                "set eos_token in its tokenizer_config.json",
            )
        self.tokenizer = tokenizer
        self.max_length = _ANY_LENGTH if max_length is None else max_length
        self.model = model
        self._encoders: dict[tuple[frozenset[str], int], Encoder] = {}

    def __call__(self, example: Example, texts: Sequence[str] | None = None, room: int = 0) -> Tokens:
        """The ids of an Example's candidates.

        texts: responses to its prompt in place of its candidates. room: tokens that have to fit behind each response.

        Raises: UserError for a conversation where the tokenizer has no chat template.
        """
        if example.is_chat and self.tokenizer.chat_template is None:
            raise UserError(
                f"{example.id}: this prompt is a conversation and the tokenizer of {self.model} has no chat template",
                f"set chat_template to one of {', '.join(builtin_templates())}, or to the path of a .jinja file",
            )
        texts = [candidate.text for candidate in example.candidates] if texts is None else texts
        prompt = [{"role": message.role, "content": message.content} for message in example.prompt]
        # One row each, so that a candidate that cannot be encoded takes no other with it. Numbers are unique here.
        rows = [
            Row(example.id, number, {"prompt": prompt, "candidates": [{"text": text}], "is_chat": example.is_chat})
            for number, text in enumerate(texts, 1)
        ]
        chunk = self._encoder(frozenset(), room).encode(rows)
        kept = {row["row"]: row for row in chunk.kept.to_pylist()}
        left_out = {row["row"]: row["reason"] for row in chunk.left_out}
        return Tokens(
            example.id,
            next((row["prompt"] for row in kept.values()), []),
            tuple(kept[row.number]["responses"][0] if row.number in kept else None for row in rows),
            tuple(left_out.get(row.number) for row in rows),
        )

    def verdicts(self, asked: str) -> dict[str, list[int]]:
        """The ids of the two words that a ranker may say, as training writes them behind a response.

        asked: verdicts (Good, Bad) or comparisons (A, B).

        Raises: UserError where the tokenizer cannot write them.
        """
        return self._encoder(_VERDICTS[asked], 0).verdict_ids

    def _encoder(self, needs: frozenset[str], room: int) -> Encoder:
        """Kept, because each compiles the chat template once."""
        if (needs, room) not in self._encoders:
            limits = Limits(self.max_length - room, None, "drop")
            self._encoders[needs, room] = Encoder(self.tokenizer, _OWN_RECORDS, needs, Pairing(), "append", limits)
        return self._encoders[needs, room]
