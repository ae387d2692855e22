"""An example as text: the prompt, and what each response adds to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from prefopt.data.rows import Unusable
from prefopt.data.template import Template, compiled_template
from prefopt.data.template_limit import bounded, check_size, is_escape, refused
from prefopt.errors import UserError
from prefopt.records import Candidate, Example, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Rendered(NamedTuple):
    """prompt + responses[i] is what the model reads; where a template closes a response with EOS, it ends there."""

    prompt: str
    responses: tuple[str, ...]


@dataclass(frozen=True)
class Renderer:
    """Turns examples into text: conversations through the tokenizer's chat template, plain rows as they stand."""

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, example: Example, candidates: tuple[Candidate, ...]) -> Rendered:
        """The text of `example`'s prompt and of these responses.

        Raises: UserError for a conversation where there is no template, or one that does not end; Unusable where the
            template refuses the conversation.
        """
        if not example.is_chat:
            return Rendered(example.prompt[0].content, tuple(c.text for c in candidates))
        if self.tokenizer.chat_template is None:
            raise no_template(example.id)
        prompt, *wholes = self._rendered(example, candidates)
        responses = []
        for candidate, whole in zip(candidates, wholes):
            if candidate.text.strip() and self._says_nothing(prompt, whole):
                raise Unusable("template leaves out the response", "it renders nothing for the role assistant")
            if not whole.startswith(prompt):
                raise Unusable(
                    "template changes the prompt", "the dialogue with its answer begins otherwise than without"
                )
            responses.append(_cut_after_eos(whole[len(prompt) :], candidate.text, self._eos))
        return Rendered(prompt, tuple(responses))

    def _says_nothing(self, prompt: str, whole: str) -> bool:
        """Whether a template writes no more for a dialogue with its answer than without it, but for an EOS."""
        added = whole[len(prompt) :] if whole.startswith(prompt) else ""
        if not added and not prompt.startswith(whole):
            return False
        return not added.replace(self._eos or " ", "").strip()

    @cached_property
    def _eos(self) -> str | None:
        return self.tokenizer.eos_token

    @cached_property
    def _template(self) -> Template | None:
        """The chat template, compiled; None where it does not give what `apply_chat_template` gives."""
        return compiled_template(self.tokenizer)

    def _rendered(self, example: Example, candidates: tuple[Candidate, ...]) -> list[str]:
        """The prompt, and the whole dialogue with each response."""
        dialogues = [example.prompt, *((*example.prompt, Message("assistant", c.text)) for c in candidates)]
        turns = [[{"role": m.role, "content": m.content} for m in dialogue] for dialogue in dialogues]
        try:
            with bounded(example.id):
                rendered = [*self._apply(turns[:1], True), *self._apply(turns[1:], False)]
        except UserError:
            raise
        except Exception as error:  # a template is somebody's program: it may fail in any way
            if is_escape(error):
                raise refused(example.id, error) from None
            raise Unusable("chat template refuses the row", str(error).strip()[:200] or type(error).__name__) from None
        for text, messages in zip(rendered, turns):
            check_size(example.id, text, [message["content"] for message in messages])
        return rendered

    def _apply(self, turns: list[list[dict[str, str]]], add_generation_prompt: bool) -> list[str]:
        if self._template is not None:
            return [self._template(messages, add_generation_prompt) for messages in turns]
        rendered = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return [str(text) for text in rendered]


def no_template(where: str) -> UserError:
    """What to say when a conversation meets a tokenizer without chat template."""
    from prefopt.data.tokenizer import builtin_templates

    return UserError(
        f"{where}: this row is a conversation and the tokenizer has no chat template",
        f"set data.chat_template to one of {', '.join(builtin_templates())}, or to the path of a .jinja file; "
        "or set model.tokenizer to a tokenizer that has one",
    )


def _cut_after_eos(rendered: str, content: str, eos: str | None) -> str:
    """`rendered` without what the template writes behind the EOS with which it closes the answer (often a newline).

    An answer may spell EOS itself: then that one stays. An answer may also be spelt by EOS, as "d" is by "<|im_end|>".
    """
    end = rendered.rfind(eos) if eos else -1
    if eos is None or end < 0:
        return rendered
    said = content.strip()
    is_of_the_answer = said in rendered and said not in rendered[:end]
    return rendered if is_of_the_answer else rendered[: end + len(eos)]
