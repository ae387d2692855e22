"""What to do about a recipe that is not found, or that chooses a group as no recipe can: the error for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefopt import losses
from prefopt.errors import UserError, did_you_mean
from prefopt.loss_file import misplaced
from prefopt.recipe_files import RecipeFolder, Tree, choices

_FEW = 12
"""As many names are listed; of more, `--help` is named, which lists them with their titles."""


def no_such_choice(group: str, name: str, folders: Sequence[RecipeFolder], tree: Tree) -> UserError:
    """The error for `group=name` where no folder has it: where it lies instead, else the nearest names."""
    known = choices(group, list(folders))
    hint = _not_a_name(group, name, known) or _misplaced(group, name, folders)
    if group == "loss" and not hint:
        hint = _of_a_method(name, known, folders)
    if not hint:
        near = did_you_mean(name, known)
        is_near = near.startswith("did")
        hint = near if is_near or len(known) <= _FEW else f"prefopt {tree.main} --help lists them"
        if group == "recipe" or not is_near:
            hint += f"; looked in {_looked_in(group, folders)}"
    return UserError(f"{group}={name}: there is no such {group}", hint)


def not_chosen_like_that(file: str, group: str, value: object) -> UserError:
    """The error for `GROUP: NAME` in a recipe, which would put a word in the place of the group's keys."""
    means = {"model": f"{{path: {value}}}", "data": f"{{train: [{{path: {value}}}]}}"}
    said = f"a recipe chooses one in its defaults list: - override /{group}: {value}"
    if group in means and _is_path(str(value)):
        said = f"{group}: {means[group]}"
    return UserError(f"{file}: {group}: expected keys and values, got text {value!r}", said)


def _is_path(name: str) -> bool:
    endings = (".jsonl", ".json", ".csv", ".parquet", ".gz")
    return "/" in name or name.lower().endswith(endings) or Path(name).exists()


def _not_a_name(group: str, name: str, known: dict[str, Path]) -> str:
    """What is meant where the path of something stands in the place of a name; empty where none does."""
    stem = name.removesuffix(".yaml").rpartition(f"{group}/")[2].removeprefix("recipes/")
    if stem != name and stem in known:
        return f"a file is chosen by its name: {group}={stem}"
    if name.endswith((".yaml", ".yml")):
        return ""
    if group == "model" and _is_path(name):
        return f"did you mean model.path={name}?"
    if group == "data" and _is_path(name):
        return f"did you mean 'data.train=[{{path: {name}}}]'?"
    return ""


def _misplaced(group: str, name: str, folders: Sequence[RecipeFolder]) -> str:
    """Where a file of that name lies, if it lies where none is looked for, and where it has to be."""
    base = Path(name).name.removesuffix(".yaml")
    own = [Path(folder.shown) for folder in folders if not folder.is_packaged]
    target = Path(own[0] if own else "recipes") / group / f"{base}.yaml"
    too_high = [root / f"{base}.yaml" for root in own]
    for file in (*too_high, Path(f"{name.removesuffix('.yaml')}.yaml"), Path(f"{base}.yaml")):
        if file.is_file():
            where = "is one folder too high" if file in too_high else "is not where recipes are looked for"
            return f"{file} {where}: move it to {target}"
    return ""


def _of_a_method(name: str, known: dict[str, Path], folders: Sequence[RecipeFolder]) -> str:
    """What a method lacks of its two files, its code and its settings, where one of them is there; else empty."""
    stem = Path(name).name.removesuffix(".py")
    own = [folder.shown for folder in folders if not folder.is_packaged]
    settings = Path(own[0] if own else "recipes") / "loss" / f"{stem}.yaml"
    (folder,) = losses.__path__
    is_code, is_settings = stem in losses.names(), stem in known
    if is_code and is_settings:
        return f"a method is chosen by its name: loss={stem}"
    if is_code:
        return f"{Path(folder, stem)}.py is there and its settings are not: write {settings}"
    elsewhere = misplaced(name, Path(folder))
    return elsewhere and elsewhere + (f"; then loss={stem}" if is_settings else f"; its settings are {settings}")


def _looked_in(group: str, folders: Sequence[RecipeFolder]) -> str:
    own = [f"{folder.shown}/{group}" for folder in folders if not folder.is_packaged]
    if own:
        return f"{', '.join(own)} and prefopt's own"
    if Path("recipes").is_dir():  # prefopt's own repository, or a command whose folder there is missing
        return f"prefopt's own {group} only"
    return f"prefopt's own only: {Path.cwd()} has no folder recipes"
