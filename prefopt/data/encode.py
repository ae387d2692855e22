"""Rows to token ids, a chunk at a time: where the response begins, BOS, EOS, and one account per row."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from prefopt.data.boundaries import Boundaries, boundaries_of
from prefopt.data.fit import Limits
from prefopt.data.pairing import Pairing
from prefopt.data.recognised import Recognised
from prefopt.data.render import Rendered, Renderer
from prefopt.data.rows import Row, Unusable
from prefopt.data.schema import SCHEMA, Chunk
from prefopt.data.select import LabelledBy, Selected, select
from prefopt.data.tokenizer import special_prefix, with_prefix
from prefopt.data.verdicts import judged, words_of
from prefopt.errors import UserError
from prefopt.records import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class _Draft(NamedTuple):
    """A row between text and ids."""

    row: Row
    example: Example
    selected: Selected
    rendered: Rendered


@dataclass(frozen=True)
class Encoder:
    """Everything that decides the token ids of a source's rows; goes to worker processes as it is.

    eos: "append" closes every whole response with EOS, "keep" takes what the template wrote. margins: names of columns,
    as `Recognised.example` takes them.
    """

    tokenizer: PreTrainedTokenizerBase
    recognised: Recognised
    needs: frozenset[str]
    pairing: Pairing
    eos: str
    limits: Limits
    margins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for need, other in (("verdicts", "labels"), ("comparisons", "pairs")):
            if need in self.needs and other not in self.needs:
                raise ValueError(f"a method that needs {need} needs {other} too")
        for need in ("labels", "comparisons"):
            if {need, "targets"} <= self.needs:
                raise ValueError(f"a method cannot need targets and {need}: a target has no label and no pair")

    def options(self) -> dict[str, Any]:
        """The part of it that is neither tokenizer nor template, as JSON."""
        return {
            "format": self.recognised.format.name,
            "columns": sorted(self.recognised.columns),
            "needs": sorted(self.needs),
            "pairing": asdict(self.pairing),
            "margins": self.margins,
            "eos": self.eos,
            **asdict(self.limits),
        }

    def encode(self, rows: Sequence[Row]) -> Chunk:
        """The token ids of some rows. Each row's result depends on no other row.

        Raises: UserError for what is wrong with settings or tokenizer, or for a long row where `too_long` is error.
        """
        drafts: list[_Draft] = []
        outcomes: list[dict[str, Any] | None] = []  # in the order of the rows; None: a draft
        for row in rows:
            try:
                drafts.append(self._draft(row))
                outcomes.append(None)
            except Unusable as reason:
                outcomes.append(_left_out(row, reason))
        kept: list[dict[str, Any]] = []
        left_out: list[dict[str, Any]] = []
        encoded = iter(zip(drafts, self._token_ids(drafts)))
        for outcome in outcomes:
            if outcome is not None:
                left_out.append(outcome)
                continue
            draft, (prompt, responses, num_moved) = next(encoded)
            try:
                kept.append(self._finish(draft, prompt, responses, num_moved))
            except Unusable as reason:
                left_out.append(_left_out(draft.row, reason))
        return Chunk(pa.RecordBatch.from_pylist(kept, schema=SCHEMA), left_out)

    def _draft(self, row: Row) -> _Draft:
        example = self.recognised.example(row, self.needs, self.margins)
        selected = judged(select(example, self.needs, self.pairing), self.needs)
        return _Draft(row, example, selected, self._renderer(example, selected.candidates))

    def _token_ids(self, drafts: list[_Draft]) -> list[tuple[list[int], list[list[int]], int]]:
        """For each draft the prompt's ids, each response's, and how many of the responses had to be encoded alone.

        The prompt is encoded once for all its responses. A response's ids are what prompt and response together
        encode to, less the prompt's own; where the last prompt token would merge with the first of the response, the
        response is encoded alone, so that the prompt stays the same. No more of the prompt is encoded before a response
        than can have a say in its ids: what follows the last token at which the tokenizer cuts for certain.
        """
        cuts = [self._boundaries.last(d.rendered.prompt) for d in drafts]
        texts: list[str] = []
        for draft, cut in zip(drafts, cuts):
            prompt = draft.rendered.prompt
            tail = prompt if cut is None else prompt[cut[0] :]
            texts += [prompt, *(tail + response for response in draft.rendered.responses)]
        ids = iter(self._tokenise(texts))
        found: list[tuple[list[int], list[list[int]]]] = []
        alone: list[tuple[int, int]] = []
        for place, (draft, cut) in enumerate(zip(drafts, cuts)):
            prompt_ids = next(ids)
            tail_ids = prompt_ids if cut is None else prompt_ids[_last_place(prompt_ids, cut[1]) :]
            responses = []
            for number in range(len(draft.rendered.responses)):
                whole = next(ids)
                if whole[: len(tail_ids)] != tail_ids:
                    alone.append((place, number))
                responses.append(whole[len(tail_ids) :])
            found.append((prompt_ids, responses))
        again = self._tokenise([drafts[place].rendered.responses[number] for place, number in alone])
        moved = [0] * len(drafts)
        for (place, number), response in zip(alone, again):
            found[place][1][number] = response
            moved[place] += 1
        return [(self._prefixed(d, prompt), responses, n) for d, (prompt, responses), n in zip(drafts, found, moved)]

    def _tokenise(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        if self.tokenizer.is_fast:  # the same ids as the call below, in two thirds of the time
            encodings = self.tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            return [encoding.ids for encoding in encodings]
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]

    def _prefixed(self, draft: _Draft, prompt: list[int]) -> list[int]:
        return with_prefix(prompt, self._prefix, draft.example.is_chat)

    def _finish(self, draft: _Draft, prompt: list[int], responses: list[list[int]], num_moved: int) -> dict[str, Any]:
        """One row of `SCHEMA`."""
        bos, eos, _ = self._special_ids
        selected = draft.selected
        if not prompt:
            raise Unusable("empty prompt", "no token from which the first response token could be predicted")
        if bos is not None and prompt[:2] == [bos, bos]:
            raise Unusable("two BOS", "the text of the prompt begins with the BOS that the template writes")
        closed = [self._closed(response, draft.row.id) for response in responses]
        whole = [ids + verdict for ids, verdict in zip(closed, self._verdicts(selected), strict=True)]
        fitted = self.limits.fit(prompt, whole, bos, draft.row.id)
        said = fitted.responses
        if selected.verdicts is not None:
            said = closed
            if fitted.num_eos_lost:
                longest = f"prompt {len(prompt)} + longest response and verdict {max(map(len, whole))} tokens"
                raise Unusable("verdict does not fit", f"{longest}, max_length {self.limits.max_length}")
        pairs = [(w, r) for w, r in selected.pairs if said[w] != said[r]]
        if selected.pairs and not pairs:
            same = "after rendering" if fitted.num_eos_lost == 0 else "after the cut to max_length"
            raise Unusable("chosen equals rejected", same)
        labelled_by_pair = selected.labelled_by is LabelledBy.PAIR
        texts = [message.content for message in draft.example.prompt] + [c.text for c in selected.candidates]
        return {
            "id": draft.row.id,
            "row": draft.row.number,
            "prompt": fitted.prompt,
            "responses": fitted.responses,
            # Of an undesirable response only p(Bad) is computed, which does not compare with p(Good) of its pair.
            "pairs": [] if "verdicts" in self.needs else [place for pair in pairs for place in pair],
            "best": selected.best,
            "labels": selected.labels,
            "scores": selected.scores,
            "margins": selected.margins,
            "target": selected.target,
            "given": None if selected.verdicts is None else [len(ids) for ids in closed],
            "prompt_hash": _hash(draft.example),
            "prompt_text": draft.rendered.prompt,
            "chosen_text": selected.best_text,
            "num_unused": selected.num_unused,
            "num_added": selected.num_added,
            "num_compared": len(selected.candidates) // 2 if "comparisons" in self.needs else 0,
            "is_paired_ranking": (labelled_by_pair or "pairs" in self.needs) and len(draft.example.candidates) > 2,
            "num_identical": selected.num_identical + len(selected.pairs) - len(pairs),
            "num_close": selected.num_close,
            "num_desirable": sum(selected.labels or ()),
            "labelled_by_pair": labelled_by_pair,
            "is_labelled_by_score": self.recognised.is_labelled_by_score(draft.row, self.needs),
            "is_demonstration": selected.labelled_by is LabelledBy.DEMONSTRATION,
            "num_moved": num_moved,
            "num_glued": 0 if draft.example.is_chat else _num_glued(draft.rendered),
            "num_eos": sum(response[-1] == eos for response in said),
            "num_eos_lost": fitted.num_eos_lost,
            "prompt_cut": fitted.prompt_cut,
            "is_prompt_empty": not any(message.content.strip() for message in draft.example.prompt[-1:]),
            "num_bos": self._num_bos(fitted.prompt, fitted.responses),
            "num_special": sum(self._spelled.search(text) is not None for text in texts) if self._spelled else 0,
            "num_unknown": self._num_unknown(fitted.prompt, fitted.responses),
        }

    def _verdicts(self, selected: Selected) -> list[list[int]]:
        """The ids that follow each response."""
        if selected.verdicts is None:
            return [[] for _ in selected.candidates]
        return [self.verdict_ids[word] for word in selected.verdicts]

    @cached_property
    def verdict_ids(self) -> dict[str, list[int]]:
        """The ids of each verdict, the same wherever it stands. Raises: UserError where the tokenizer lacks them."""
        *_, unknown = self._special_ids
        words = list(words_of(self.needs))
        found = dict(zip(words, self._tokenise(words), strict=True))
        for word, ids in found.items():
            if not ids or unknown in ids:
                gives = "an unknown token" if ids else "no id"
                raise UserError(
                    f"the tokenizer cannot write the verdict {word!r}: it gives {gives}",
                    "use a model with another tokenizer, or another loss",
                )
        return found

    def _closed(self, response: list[int], row: str) -> list[int]:
        """The response with its EOS: never two, and none added where `eos` is keep."""
        _, eos, _ = self._special_ids
        if not response or all(token == eos for token in response):
            raise Unusable("empty response", "its text encodes to no token")
        while len(response) > 1 and response[-1] == response[-2] == eos:
            response = response[:-1]
        if self.eos == "keep" or response[-1] == eos:
            return response
        if eos is None:
            raise UserError(
                f"{row}: the tokenizer defines no EOS token to close this response with",
                "set eos_token in its tokenizer_config.json; or data.eos=keep",
            )
        return [*response, eos]

    def _num_bos(self, prompt: list[int], responses: list[list[int]]) -> int:
        bos, eos, _ = self._special_ids
        if bos is None:
            return 0
        if bos == eos:  # the same token also closes turns: only the one in front is a beginning
            return int(prompt[0] == bos)
        return prompt.count(bos) + max(response.count(bos) for response in responses)

    def _num_unknown(self, prompt: list[int], responses: list[list[int]]) -> int:
        bos, eos, unknown = self._special_ids
        if unknown is None or unknown in (bos, eos):
            return 0
        return sum(ids.count(unknown) for ids in (prompt, *responses))

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self.tokenizer)

    @cached_property
    def _boundaries(self) -> Boundaries:
        return boundaries_of(self.tokenizer)

    @cached_property
    def _prefix(self) -> list[int]:
        return special_prefix(self.tokenizer)

    @cached_property
    def _special_ids(self) -> tuple[int | None, int | None, int | None]:
        """BOS, EOS and the unknown token; read once, because a tokenizer looks them up by name each time."""
        return self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.unk_token_id

    @cached_property
    def _spelled(self) -> re.Pattern[str] | None:
        """Finds special tokens spelled out in a text."""
        tokens = [t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special and t.content]
        return re.compile("|".join(map(re.escape, tokens))) if tokens else None


def _last_place(ids: list[int], number: int) -> int:
    """Where `number` stands last."""
    return len(ids) - 1 - ids[::-1].index(number)


def _left_out(row: Row, reason: Unusable) -> dict[str, Any]:
    return {"row": row.number, "id": row.id, "reason": reason.reason, "detail": reason.detail}


def _num_glued(rendered: Rendered) -> int:
    """Responses that begin with a letter or digit right behind the prompt; in ASCII, for many scripts need no space."""
    end = rendered.prompt[-1:]
    if not end or end.isspace() or not end.isascii():
        return 0
    return sum(response[:1].isascii() and response[:1].isalnum() for response in rendered.responses)


def _hash(example: Example) -> int:
    """64 bits of the prompt's words: equal for equal prompts, however they are rendered."""
    words = "\0".join(message.content.strip() for message in example.prompt)
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big")
