"""How many tokens a model takes, told from its configuration: asked by launchers, too. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prefopt.errors import UserError
from prefopt.model.trust import read_object

_SCALED = ("dynamic", "longrope", "su")
"""Kinds of rotary embedding that scale by the longest row of a batch ("su": the first name of longrope)."""


class Limits(NamedTuple):
    """positions: tokens a row may have. before_scaling: tokens up to which rows do not depend on the batch's longest,
    where rope, the kind of the rotary embedding, scales by it. None: no limit."""

    positions: int | None
    before_scaling: int | None
    rope: str | None

    @property
    def longest(self) -> int | None:
        """The most tokens that prompt and response may have together; None where nothing limits them."""
        return min((most for most in self[:2] if most is not None), default=None)


def limits_of(text: Mapping[str, Any]) -> Limits:
    """The limits that the configuration of a language model says, as a file has it or as transformers fills it."""
    most = _whole(text.get("max_position_embeddings")) or _whole(text.get("n_positions"))
    rope = text.get("rope_parameters") or text.get("rope_scaling")
    if not isinstance(rope, Mapping):
        return Limits(most, None, None)
    kind = rope.get("rope_type") or rope.get("type")
    trained = None
    if kind in _SCALED:
        said = (part.get("original_max_position_embeddings") for part in (rope, text))
        trained = next((tokens for tokens in map(_whole, said) if tokens), most)
    return Limits(most, trained, str(kind) if kind else None)


def limits_in(folder: Path) -> Limits:
    """The limits of the model in a folder, by its config.json alone: what that leaves to transformers is no limit here.

    Raises: UserError where the configuration cannot be read.
    """
    config = read_object(folder / "config.json")
    text = config.get("text_config")
    found = limits_of(text) if isinstance(text, dict) else Limits(None, None, None)
    return limits_of(config) if found.positions is None else found


def positions(folder: Path) -> int | None:
    """The most tokens that prompt and response may have together for the model in a folder; None where its config.json
    names no limit. The same as `load.longest_row`, which also knows what transformers takes where nothing is said.

    Raises: UserError where the configuration cannot be read.
    """
    return limits_in(folder).longest


def check_longest(limits: Limits, longest: int, folder: Path | str, key: str = "model.path") -> None:
    """Refuse rows that a model cannot take. longest: tokens of the longest. key: the setting that names the model.

    Raises: UserError with the setting that would do.
    """
    most, trained, rope = limits
    if most is not None and longest > most:
        raise UserError(
            f"{key}: {folder} has {most} positions, but the longest row has {longest} tokens",
            f"set data.max_length={limits.longest} or less",
        )
    if trained is not None and longest > trained:
        raise UserError(
            f"{key}: {folder} scales its rotary embedding by the longest row of a batch ({rope}), so"
            f" beyond {trained} tokens a row's loss would depend on its neighbours; the longest row has {longest}",
            f"set data.max_length={trained}",
        )


def _whole(said: Any) -> int | None:
    return said if isinstance(said, int) and not isinstance(said, bool) and said > 0 else None
