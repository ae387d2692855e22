"""`hydra.sweeper.params`: what a sweep runs over where a recipe or a sweeper's file says it, not the command line.

A recipe says `hydra: {sweeper: {params: {KEY: "VALUE,VALUE"}}}`, in Hydra's words for a sweep. A key that the command
line gives, with one value or several, is taken from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefopt.errors import UserError
from prefopt.overrides import parse, plain
from prefopt.recipe_files import GROUPS, search_path


def stated_by_recipe(words: list[str], config_dir: Path | None) -> Mapping[str, Any]:
    """What the recipe of a command line says of hydra.sweeper; nothing where there is no recipe, or several.

    words: overrides of the run.

    Raises: UserError for a recipe or a group's file that there is not, or cannot be read.
    """
    chosen: dict[str, str | None] = {}
    for word in words:
        override = parse(word)
        if override.key_or_group in GROUPS and not override.is_delete() and not override.is_sweep_override():
            value = plain(override.value())
            if not isinstance(value, (dict, list)):
                chosen[override.key_or_group] = None if value is None else str(value)
    if chosen.get("recipe") is None:
        return {}
    from prefopt.merge import check_choices, merge_files

    folders = search_path(config_dir)
    check_choices(chosen, folders)
    return merge_files(chosen, folders).sweeper


def with_params(words: list[str], params: Mapping[str, Any]) -> list[str]:
    """The words of a command line and one for each of `params` that they do not say anything of.

    Raises: UserError for a value that is no text in Hydra's words for a sweep, nor a number.
    """
    given = {parse(word).key_or_group for word in words}
    added = []
    for key, value in params.items():
        if isinstance(value, (list, dict)):
            raise UserError(
                f"hydra.sweeper.params.{key}: a {type(value).__name__} is one value, and a sweep needs several",
                f'text as on the command line, in the recipe: {key}: "1,2,5"',
            )
        if key not in given:
            added.append(f"{key}={'null' if value is None else value}")
    return [*words, *added]
