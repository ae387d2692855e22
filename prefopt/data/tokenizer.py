"""The tokenizer and the chat template it is used with."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt.data.hub import quiet_hub
from prefopt.data.template_limit import bounded, check_size, is_escape, refused
from prefopt.errors import RunError, UserError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEMPLATES = Path(__file__).parent / "templates"


def builtin_templates() -> list[str]:
    """Names that `data.chat_template` may have."""
    return sorted(path.stem for path in _TEMPLATES.glob("*.jinja"))


def load_tokenizer(path: str, revision: str | None = None, chat_template: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder or hub name, carrying the chat template that it is to be used with.

    chat_template: a builtin name, the path of a .jinja file, or the template's text; None keeps the tokenizer's own.

    Raises: UserError for a folder without a tokenizer, a damaged one, or a template that is missing or does not parse;
        RunError where the hub cannot be reached.
    """
    from transformers import AutoTokenizer
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    if path.startswith((".", "/", "~")) and not Path(path).expanduser().exists():
        raise UserError(f"{path}: there is no such model folder", f"working directory: {Path.cwd()}")
    try:
        with quiet_hub():
            place = str(Path(path).expanduser())
            _check_no_code(path, get_tokenizer_config(place, revision=revision))
            tokenizer = AutoTokenizer.from_pretrained(place, revision=revision, trust_remote_code=False)
    except UserError:
        raise
    except Exception as error:  # tokenizers raises bare Exception for a damaged tokenizer.json
        brief = (str(error).strip().splitlines() or [""])[0][:200]
        if Path(path).exists():
            raise UserError(
                f"{path}: no tokenizer could be loaded from this folder ({type(error).__name__}: {brief})",
                "it needs tokenizer.json and tokenizer_config.json; or set model.tokenizer to another folder",
            ) from error
        raise RunError(
            f"{path}: neither a folder here nor a tokenizer that the hub gave ({brief}).",
            "Without network only models in the local cache can be used; check the name, or give a folder's path.",
        ) from error
    if tokenizer.is_fast:
        # A tokenizer.json may carry its author's cut and padding; rows are never cut behind our back.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    tokenizer.chat_template = template_text(tokenizer, path, chat_template)
    if tokenizer.chat_template is not None:
        _check_template(tokenizer, chat_template or path)
    return tokenizer


def _check_no_code(path: str, config: Any) -> None:
    """Raises: UserError for a tokenizer that is a class of its own: transformers would take another one in its place,
    or run the code that it came with. config: tokenizer_config.json.
    """
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    own = config.get("auto_map") if isinstance(config, Mapping) else None
    if not own or (isinstance(own, Mapping) and not own.get("AutoTokenizer")):
        return
    name = str(config.get("tokenizer_class") or "")
    if not name or tokenizer_class_from_name(name) is None:
        raise UserError(
            f"{path}: this tokenizer needs its own code ({name or 'tokenizer_config.json: auto_map'}), which prefopt"
            " does not run",
            "save it once as tokenizer.json where you trust it; or set model.tokenizer to another",
        )


def template_text(tokenizer: PreTrainedTokenizerBase, path: str, chat_template: str | None) -> str | None:
    """The text of the template that will be used, or None where neither settings nor tokenizer have one.

    A builtin template begins with the BOS exactly where the tokenizer itself would put one in front of a text.
    """
    if chat_template is None:
        own = tokenizer.chat_template
        if isinstance(own, dict):
            if "default" not in own:
                raise UserError(
                    f"{path}: the tokenizer has several chat templates ({', '.join(own)}) and none is the default",
                    "save the one to use in a .jinja file and set data.chat_template to its path",
                )
            return own["default"]
        if own is not None and not isinstance(own, str):
            raise UserError(f"{path}: the tokenizer's chat template is no text", "set data.chat_template")
        return own
    if "{{" in chat_template or "{%" in chat_template:
        return chat_template
    if chat_template in builtin_templates():
        text = (_TEMPLATES / f"{chat_template}.jinja").read_text(encoding="utf-8").rstrip("\n")
        has_bos = tokenizer.bos_token_id is not None and tokenizer.bos_token_id in special_prefix(tokenizer)
        return "{{- bos_token -}}\n" + text if has_bos else text
    file = Path(chat_template).expanduser()
    try:
        return file.read_text(encoding="utf-8").removesuffix("\n")
    except FileNotFoundError:
        hint = f"builtin: {', '.join(builtin_templates())}; or the path of a .jinja file; or the template's text"
        near = did_you_mean(chat_template, builtin_templates())
        message = f"data.chat_template: {chat_template!r} is no builtin template and no file"
        raise UserError(message, near if near.startswith("did") else hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.chat_template: {chat_template} cannot be read ({error})") from error


def _check_template(tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Raises: UserError for a template that does not parse, end or stay in its sandbox, or puts two BOS in front."""
    from jinja2 import TemplateSyntaxError

    name = where if len(where) < 200 and "\n" not in where and "{" not in where else "data.chat_template"
    try:
        with bounded(name):
            text = str(tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False))
    except TemplateSyntaxError as error:
        raise UserError(f"{name}: the chat template does not parse (line {error.lineno}: {error.message})") from None
    except UserError:
        raise
    except Exception as error:
        if is_escape(error):
            raise refused(name, error) from None
        return  # it may ask for a system turn, or for two turns: each row will say
    check_size(name, text, ["x"])
    bos = tokenizer.bos_token
    if bos and text.startswith(bos + bos):
        raise UserError(f"{name}: the chat template begins with two BOS ({bos})", "take one of them out")


def special_prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that the tokenizer itself puts in front of a plain text: usually the BOS, or nothing."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    extra = len(full) - len(bare)
    for start in range(extra + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start]
    raise UserError("the tokenizer changes a text's ids when it adds special tokens, which prefopt cannot follow")


def with_prefix(ids: list[int], prefix: list[int], is_chat: bool) -> list[int]:
    """A plain prompt's ids behind what the tokenizer puts in front of a text, unless it is written there already."""
    if is_chat or not prefix or ids[: len(prefix)] == prefix:
        return ids
    return prefix + ids


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of everything that decides a text's token ids, the chat template left aside."""
    digest = hashlib.sha256()
    if tokenizer.is_fast:
        digest.update(tokenizer.backend_tokenizer.to_str().encode())
    else:
        with tempfile.TemporaryDirectory() as folder:
            for file in sorted(tokenizer.save_vocabulary(folder)):
                digest.update(Path(file).read_bytes())
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    digest.update(json.dumps([type(tokenizer).__name__, special], sort_keys=True).encode())
    return digest.hexdigest()
