"""A chat template as a function: most of its time is else spent around it, on copies of data that are plain already."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prefopt.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Callable[[list[dict[str, str]], bool], str]
"""Of messages {role, content}, and whether an answer is to be begun."""

_PROBE = [{"role": "user", "content": " a\n"}, {"role": "assistant", "content": "b "}]


def compiled_template(tokenizer: PreTrainedTokenizerBase) -> Template | None:
    """The tokenizer's template without what `apply_chat_template` does around it for tools, documents and images.

    None where transformers compiles templates otherwise, or a short dialogue is not rendered the same by both.
    """
    try:
        from transformers.utils.chat_template_utils import _compile_jinja_template
    except ImportError:
        return None
    compiled = _compile_jinja_template(tokenizer.get_chat_template())
    special = {
        name: [str(one) for one in token] if isinstance(token, list) else str(token)
        for name, token in tokenizer.special_tokens_map.items()
    }
    given = {"tools": None, "documents": None, **special}

    def template(messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        return compiled.render(messages=messages, add_generation_prompt=add_generation_prompt, **given)

    try:
        for messages, add in ((_PROBE, False), (_PROBE[:1], True)):
            usual = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add)
            if template(messages, add) != usual:
                return None
    except UserError:  # it does not come to an end
        raise
    except Exception:  # a template may refuse the probe in any way: rows are then rendered the usual way
        return None
    return template
