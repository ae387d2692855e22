"""A model that answers questions as it was trained to: its template, its stop tokens, one BOS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefopt.data.prompts import PromptEncoder
from prefopt.data.rows import Unusable
from prefopt.data.tokenizer import builtin_templates
from prefopt.errors import UserError
from prefopt.evaluate.answer_chunks import Reply
from prefopt.evaluate.measure import EvalPlace
from prefopt.evaluate.questions import Question
from prefopt.pairs.chance import key_of
from prefopt.pairs.policies import Answering, open_answering
from prefopt.pairs.sampling import Drawing, sample, uniforms_of
from prefopt.records import Example, Message

_KEY = "measure"
_POLICY = 0  # its place among those that answer, of which there is one


@dataclass(frozen=True)
class Decoding:
    """top_k, top_p, max_new_tokens: as of `Drawing`. stop: further tokens that end an answer, as they are spelt.
    max_prompt_tokens: longer prompts are not asked; None: as far as the model has positions."""

    top_k: int
    top_p: float
    max_new_tokens: int
    stop: tuple[str, ...]
    max_prompt_tokens: int | None


class Answerer:
    """Asks one model. The random numbers of an answer are of the seed and the conversation alone."""

    def __init__(self, place: EvalPlace, decoding: Decoding, questions: Sequence[Question]) -> None:
        """Loads the model.

        Raises: UserError for a model that cannot be used, a conversation without a chat template to put it into, and a
            template that begins a prompt with more than one BOS.
        """
        settings = place.settings
        self._decoding = decoding
        self._seed = settings.seed
        self._budget = settings.tokens_per_batch
        self._asked = open_answering(
            place.model,
            device=place.device,
            dtype=settings.dtype,
            chat_template=settings.chat_template,
            stop=decoding.stop,
            longest_prompt=decoding.max_prompt_tokens,
            longest_answer=decoding.max_new_tokens,
            key=_KEY,
        )
        if any(question.prompt.is_chat for question in questions):
            _check_template(self._asked)

    def __call__(self, ids: Sequence[str], examples: Sequence[Example], temperatures: Sequence[float]) -> list[Reply]:
        """An answer to each conversation. temperatures: of each; 0 takes the likeliest token."""
        replies: dict[int, Reply] = {}
        for temperature in sorted(set(temperatures)):
            places = [place for place, own in enumerate(temperatures) if own == temperature]
            made = self._replies([ids[place] for place in places], [examples[place] for place in places], temperature)
            replies.update(zip(places, made, strict=True))
        return [replies[place] for place in range(len(examples))]

    def _replies(self, ids: Sequence[str], examples: Sequence[Example], temperature: float) -> list[Reply]:
        asked, decoding = self._asked, self._decoding
        prompts, places, refused = asked.encode(examples)
        replies = {
            place: Reply(ids[place], None, reason=why.reason, detail=why.detail) for place, why in refused.items()
        }
        # With temperature 0 the rest has nothing to choose from.
        top_k, top_p = (decoding.top_k, decoding.top_p) if temperature else (0, 1.0)
        drawing = Drawing(temperature, top_k, top_p, decoding.max_new_tokens, asked.ends)
        uniforms = uniforms_of(
            self._seed, _POLICY, [key_of(examples[place]) for place in places], decoding.max_new_tokens
        )
        with asked.lanes() as lanes:
            found = sample(lanes, prompts, 1, drawing, uniforms, self._budget) if prompts else []
        for place, prompt, (answer,) in zip(places, prompts, found, strict=True):
            is_chat = examples[place].is_chat
            replies[place] = Reply(
                ids[place],
                asked.decode(prompt, answer.tokens, is_chat),
                len(answer.tokens),
                answer.stopped,
                _leading(prompt, asked.tokenizer.bos_token_id),
                tuple(asked.unwritable(answer.tokens, is_chat)),
            )
        return [replies[place] for place in range(len(examples))]


def _check_template(asked: Answering) -> None:
    """Raises: UserError where there is no template, or one that writes a second BOS, wherever in front of a turn."""
    tokenizer = asked.tokenizer
    if tokenizer.chat_template is None:
        raise UserError(
            f"{asked.name}: the questions are a user's turns and its tokenizer has no chat template",
            f"chat_template={'|'.join(builtin_templates())}, or the path of a .jinja file: the one it was trained with",
        )
    try:
        ids = PromptEncoder(tokenizer)(Example("chat_template", (Message("user", "x"),), ()))
    except Unusable:
        return  # it wants other turns than this one: each question will say
    bos = tokenizer.bos_token_id
    count = 0 if bos is None or bos == tokenizer.eos_token_id else ids.count(bos)
    if count > 1:
        raise UserError(
            f"{asked.name}: its chat template puts {count} BOS ({tokenizer.bos_token}) into a prompt of one turn",
            "take all but one out of the template, and see whether the model was trained with them",
        )


def _leading(ids: Sequence[int], token: int | None) -> int:
    """How many of a token the ids begin with."""
    return next((place for place, own in enumerate(ids) if own != token), len(ids))
