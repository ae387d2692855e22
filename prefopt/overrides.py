"""The words after `prefopt train`: Hydra's grammar, but no new keys.

`group=name` chooses a file, `key=value` sets a value, `~key` deletes one that a recipe added. `+key=value` and
`++key=value` mean the same as `key=value`: a key that the schema does not have is refused in every spelling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt.errors import UserError, did_you_mean
from prefopt.fill import example_of, known_keys
from prefopt.peer_names import of_a_peer
from prefopt.recipe_files import START_GROUPS, TRAIN_TREE, Tree
from prefopt.settings import MarginSettings, RunSettings, SourceSettings

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


@dataclass(frozen=True)
class Choice:
    """`group=name`. name: None for `group=null`."""

    text: str
    group: str
    name: str | None


@dataclass(frozen=True)
class Set:
    """`key=value`."""

    text: str
    key: str
    value: Any


@dataclass(frozen=True)
class Delete:
    """`~key`."""

    text: str
    key: str


def read_overrides(texts: list[str], tree: Tree = TRAIN_TREE) -> list[Choice | Set | Delete]:
    """The overrides of one run. tree: whose groups are files.

    Raises: UserError for what cannot be read, and for several values (a sweep) without -m.
    """
    return [_understand(text, parse(text), tree.groups) for text in texts]


def parse(text: str) -> Override:
    """One word in Hydra's grammar.

    Raises: UserError where it is not key=value, or Hydra cannot read the value.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{text!r}: not valid UTF-8", "write paths and names in UTF-8") from None
    if "=" not in text and not text.startswith("~"):
        hint = did_you_mean(text.lstrip("-"), ["dry-run", "show-config", "config-dir", "multirun"])
        raise UserError(f"{text}: expected key=value", hint if text.startswith("-") else _for_instance(text))
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{text}: cannot be read ({reason})", _how_to_write(text)) from None


def _how_to_write(text: str) -> str:
    """What to write in place of a word that Hydra cannot read."""
    key, _, value = text.lstrip("+").partition("=")
    example = example_of(RunSettings, key)
    quoted = f"'{key}={example}'" if example else "'key=\"a value, with a comma\"'"
    if any(value.count(opened) > value.count(closed) for opened, closed in ("[]", "{}")):
        return f"a bracket is not closed: the shell ends a word at a blank, unless quotes are round all of it, {quoted}"
    if example:
        return f"for instance {quoted}, with the quotes"
    return f"quote a value that holds blanks, commas, brackets or quotes: {quoted}"


def _for_instance(word: str) -> str:
    """What a word of `prefopt train` that stands alone may have been meant for: a recipe, rows, a model."""
    path = Path(word)
    if path.suffix in (".yaml", ".yml"):
        name = word.removesuffix(path.suffix).rpartition("recipe/")[2].removeprefix("./")
        whole = f"recipe={Path(name).name if path.is_absolute() else name}, a file in recipes/recipe"
        return f"{whole}; one of another tool: prefopt import {word}" if path.is_file() else whole
    if re.search(r"\.(jsonl?|csv|parquet)(\.gz)?$", word):
        return f"for instance 'data.train=[{{path: {word}}}]'"
    if (path / "config.json").is_file():
        return f"for instance model.path={word}"
    return f"for instance recipe={word or 'NAME'}"


def _understand(text: str, override: Override, groups: tuple[str, ...]) -> Choice | Set | Delete:
    key = override.key_or_group
    if key == "hydra" or key.startswith(("hydra.", "hydra/")):
        raise UserError(f"{text}: how runs are started is said to prefopt train and prefopt sweep only")
    if override.package is not None or "/" in key:
        raise UserError(f"{text}: there is no such group", did_you_mean(key.split("/")[0], groups))
    if override.is_delete():
        return Delete(text, key)
    if override.is_sweep_override():
        raise UserError(f"{text}: several values for one run", f"add -m to run each, or write {_as_list(text)}")
    if not (override.is_add() or override.is_force_add() or override.type is _change()):
        raise UserError(f"{text}: lists are given whole", f"{key}=[...]")
    value = plain(override.value())
    if key in groups:
        if isinstance(value, (dict, list)):
            raise UserError(f"{text}: {key}= takes the name of a file", f"single values are set by {key}.KEY=VALUE")
        return Choice(text, key, None if value is None else str(value))
    return Set(text, key, value)


def _change() -> Any:
    from hydra.core.override_parser.types import OverrideType

    return OverrideType.CHANGE


def plain(value: Any) -> Any:
    """A value of Hydra's grammar with its quoted strings as strings."""
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def _as_list(text: str) -> str:
    key, _, value = text.partition("=")
    if "{path: FILE}" in (example := example_of(RunSettings, key)) and example.startswith("["):
        parts = ", ".join(f"{{path: {part.strip()}}}" for part in value.split(","))
        return f"'{key}=[{parts}]' for a list"
    return f"{key}=[{value}] for a list"


def check_key(override: Set | Delete, loss_fields: set[str], method: str) -> None:
    """Refuse a key that the schema does not have, however it is spelt.

    Raises: UserError with the nearest valid keys.
    """
    key = override.key
    if isinstance(override, Delete):
        if not re.match(r"(deepspeed\.config|data\.eval)\.[^.]", key):
            raise UserError(
                f"{override.text}: only parts of deepspeed.config and data.eval can be deleted", "set another value"
            )
        return
    if key == "loss.name":
        raise UserError(f"{override.text}: a method is chosen whole", f"loss={override.value}")
    if key.startswith("loss."):
        setting = re.sub(r"\.\d+(\.\w+)?$", "", key.removeprefix("loss."))  # loss.weights.0, loss.parts.1.weight
        if setting not in loss_fields:
            peer = of_a_peer(setting, {f"loss.{name}" for name in loss_fields})
            raise UserError(f"{key}: {method} has no such setting", peer or did_you_mean(setting, loss_fields))
        return
    if key.startswith("deepspeed.config."):
        return
    if hint := _of_start_group(override):
        raise UserError(f"{key}: there is no such key", hint)
    keys = set(known_keys(RunSettings))
    known = keys | {f"loss.{name}" for name in loss_fields}
    known |= {f"{where}.{leaf}" for where in ("data.train.0", "data.eval.NAME") for leaf in known_keys(SourceSettings)}
    known |= {f"data.margins.0.{leaf}" for leaf in known_keys(MarginSettings)}
    known |= {"data.train.0", "data.eval.NAME", "data.margins.0", "optim.betas.0", "model.lora.target_modules.0"}
    spelt = re.sub(r"\.\d+(?=\.|$)", ".0", re.sub(r"^data\.eval\.[^.]+", "data.eval.NAME", key))
    if spelt not in known:
        raise UserError(f"{key}: there is no such key", nearest(key, known))


def _of_start_group(override: Set) -> str:
    """ "did you mean hydra/launcher=slurm?" for launcher=slurm, and the like; empty for any other key."""
    for group in START_GROUPS:
        short = group.removeprefix("hydra/")
        if override.key == short:
            return f"did you mean {group}={override.value}?"
        if override.key.startswith(f"{short}."):
            return f"did you mean hydra.{override.key}?"
    return ""


def nearest(key: str, known: set[str]) -> str:
    """What a peer's name is here (`train.learning_rate` is `optim.lr`), else the nearest keys: in the same group, else
    by the last part (`trainer.bta` is `loss.beta`)."""
    from difflib import get_close_matches

    last = {k: k.rpartition(".")[2] for k in sorted(known)}
    group, _, name = key.rpartition(".")
    if peer := of_a_peer(name, known):
        return peer
    same_group = [k for k in last if k.rpartition(".")[0] == group]
    for pool in (same_group, list(last)):
        close = get_close_matches(name, [last[k] for k in pool], n=2, cutoff=0.6)
        found = [k for word in close for k in pool if last[k] == word]
        if found:
            return "did you mean " + " or ".join(dict.fromkeys(found)) + "?"
    if same_group:
        return "known: " + ", ".join(same_group)
    return did_you_mean(key, known) if "." in key else "known: " + ", ".join(k for k in sorted(known) if "." not in k)
