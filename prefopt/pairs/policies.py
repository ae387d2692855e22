"""The policies that answer: loaded once, prompts encoded as in training, answers turned back into text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from transformers import AutoConfig

from prefopt.data.prompts import PromptEncoder
from prefopt.data.render import Renderer
from prefopt.data.rows import Unusable
from prefopt.data.tokenizer import load_tokenizer
from prefopt.errors import UserError
from prefopt.model.adapters import load_merged
from prefopt.model.files import adapter_folder, base_of, model_folder
from prefopt.model.load import load_policy, longest_row
from prefopt.model.policy import Policy
from prefopt.pairs.lanes import Lanes
from prefopt.pairs.places import real
from prefopt.pairs.stages import LeftOut, Place
from prefopt.records import Candidate, Example, Message
from prefopt.settings import ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "answer"
_CONTEXT = 8
"""Tokens of the prompt that are decoded in front of an answer, so that it gets the white space it has behind them."""


@dataclass(frozen=True)
class Answering:
    """A policy that answers.

    name: as `policy=` gives it. ends: tokens that end an answer, those of its generation settings and the EOS.
    longest_prompt: tokens, what max_prompt_tokens and the model's positions allow.
    """

    name: str
    policy: Policy
    tokenizer: PreTrainedTokenizerBase
    ends: frozenset[int]
    longest_prompt: int

    def encode(self, examples: Sequence[Example]) -> tuple[list[list[int]], list[int], dict[int, LeftOut]]:
        """Prompts to ids: those within the limit, their places among `examples`, and the others by place."""
        encoder = PromptEncoder(self.tokenizer)
        ids, places, left_out = [], [], {}
        for place, example in enumerate(examples):
            try:
                prompt = encoder(example)
            except Unusable as why:
                left_out[place] = LeftOut(example.id, why.reason, why.detail)
                continue
            if len(prompt) > self.longest_prompt:
                detail = f"{len(prompt)} tokens, of which {self.longest_prompt} may be"
                left_out[place] = LeftOut(example.id, "prompt too long", detail)
                continue
            ids.append(prompt)
            places.append(place)
        return ids, places, left_out

    def decode(self, prompt: list[int], tokens: list[int], is_chat: bool) -> str:
        """An answer's text. Behind plain text it keeps the white space with which it continues it."""
        if is_chat:  # white space between the turns is the template's
            return self._text(tokens).strip().removesuffix(self._closing).rstrip()
        before = self._text(prompt[-_CONTEXT:])
        whole = self._text(prompt[-_CONTEXT:] + tokens)
        return whole[len(before) :] if whole.startswith(before) else self._text(tokens)

    def unwritable(self, tokens: list[int], is_chat: bool) -> list[str]:
        """The special tokens of an answer, which its text cannot hold; those with which a template closes it aside."""
        special = self._special - set(self._closing_ids if is_chat else ())
        return [str(self.tokenizer.convert_ids_to_tokens(token)) for token in tokens if token in special]

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)

    @cached_property
    def _closing(self) -> str:
        """What the template writes behind an answer, where the vocabulary has it as text and not as one special token:
        a policy that has learnt it says it, and the template will write it again.
        """
        return self._text(self._closing_ids).strip()

    @cached_property
    def _closing_ids(self) -> list[int]:
        turn = Example("", (Message("user", "x"),), ())
        try:
            (whole,) = Renderer(self.tokenizer)(turn, (Candidate(_PROBE),)).responses
        except Unusable:  # it wants other turns than these
            return []
        return list(self.tokenizer(whole.rpartition(_PROBE)[2], add_special_tokens=False)["input_ids"])

    @contextmanager
    def lanes(self) -> Iterator[Lanes]:
        """Empty lanes of this policy."""
        with self.policy.generating() as model:
            yield Lanes(model)  # type: ignore[arg-type]  # adapters are merged: it is a transformers model

    def _text(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def open_policy(path: str, place: Place, stop: Sequence[str], longest_answer: int) -> Answering:
    """The model or adapters at `path`, ready to answer for a stage of `generate`. Raises: as `open_answering`."""
    settings = place.settings
    return open_answering(
        path,
        device=place.device,
        dtype=settings.dtype,
        chat_template=settings.chat_template,
        stop=stop,
        longest_prompt=settings.max_prompt_tokens,
        longest_answer=longest_answer,
        key="generate",
    )


def open_answering(
    path: str,
    *,
    device: str,
    dtype: str,
    chat_template: str | None,
    stop: Sequence[str],
    longest_prompt: int | None,
    longest_answer: int,
    key: str,
) -> Answering:
    """The model or adapters at `path`, ready to answer.

    device: of torch. dtype, chat_template: as of `PairsSettings`. stop: tokens, as the vocabulary spells them, that end
    an answer besides. longest_prompt: tokens; None: as far as the model has positions. longest_answer: tokens. key:
    where `stop` and `max_new_tokens` stand among the settings, for messages.

    Raises: UserError for a model that cannot be used, a stop that is no token of its vocabulary, and answers that leave
        no positions for a prompt.
    """
    found = real(path)
    adapters = adapter_folder(found)
    base = found if adapters is None else base_of(adapters)
    longest = _longest(base, longest_prompt, longest_answer, key)
    own_tokenizer = adapters is None or any(adapters.glob("tokenizer*"))
    tokenizer = load_tokenizer(found if own_tokenizer else base, None, chat_template)
    held = ModelSettings(path=base, dtype=dtype)
    policy = load_policy(held, longest=longest) if adapters is None else load_merged(held, adapters, longest=longest)
    policy = policy.to(device).eval().requires_grad_(False)
    ends = {tokenizer.eos_token_id, *_generation_ends(policy)}
    for word in stop:
        token = tokenizer.convert_tokens_to_ids(word)
        if token is None or (token == tokenizer.unk_token_id and word != tokenizer.unk_token):
            raise UserError(f"{key}.stop: {word!r} is no token of {path}", "spell it as its vocabulary does")
        ends.add(token)
    return Answering(path, policy, tokenizer, frozenset(ends - {None}), longest - longest_answer)


_ANY_LENGTH = 2**31


def _longest(path: str, longest_prompt: int | None, longest_answer: int, key: str) -> int:
    """Tokens of the longest sequence: as the settings say, as far as the model has positions.

    Raises: UserError where an answer alone takes all of them.
    """
    config = AutoConfig.from_pretrained(model_folder(path), trust_remote_code=False).get_text_config().to_dict()
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if positions is not None and longest_answer >= positions:
        raise UserError(
            f"{key}.max_new_tokens={longest_answer}: {path} has {positions} positions, for prompt and answer",
            f"set less than {positions}, and leave room for the prompts",
        )
    if longest_prompt is None:
        return longest_row(model_folder(path)) or _ANY_LENGTH
    wanted = longest_prompt + longest_answer
    return wanted if positions is None else min(wanted, positions)


def _generation_ends(policy: Policy) -> list[int]:
    known = policy.pretrained.generation_config.eos_token_id if policy.pretrained.generation_config else None
    return [] if known is None else known if isinstance(known, list) else [known]
