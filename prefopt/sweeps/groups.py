"""`hydra/launcher=NAME`, `hydra.launcher.KEY=VALUE` and the same of `hydra/sweeper`, composed apart from the run.

A choice is a file NAME.yaml of recipes/hydra/launcher; its key `name` says which dataclass it fills, so that a file of
one's own (--config-dir, ./recipes) may say `name: slurm` and whatever differs from the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from prefopt.errors import UserError, did_you_mean
from prefopt.fill import SettingsError, from_mapping
from prefopt.masking import refuse_secret
from prefopt.overrides import parse, plain
from prefopt.recipe_files import START_GROUPS, choices, search_path
from prefopt.sweeps.params import stated_by_recipe
from prefopt.sweeps.settings import SCHEMAS

DEFAULTS = {"hydra/launcher": "local", "hydra/sweeper": "grid"}


@dataclass(frozen=True)
class Starting:
    """How runs are started. launcher, sweeper: filled dataclasses of `SCHEMAS`. given: the groups that were named."""

    launcher: Any
    sweeper: Any
    given: frozenset[str]


def split(
    words: list[str],
    config_dir: Path | None,
    recorded: Mapping[str, Mapping[str, Any]] | None = None,
    is_sweep: bool = False,
) -> tuple[list[str], Starting]:
    """The overrides of the run, and how runs are started, from the words of one command line.

    recorded: group to settings that hold where the words choose no other file, of a sweep that goes on.
    is_sweep: whether what a recipe says of hydra.sweeper counts, over the sweeper's file and under the words.

    Raises: UserError for a choice, key or value that there is not.
    """
    for word in words:
        refuse_secret(word.partition("=")[0], word)
    of_run = [word for word in words if not word.lstrip("+~").startswith(("hydra/", "hydra."))]
    chosen: dict[str, str] = {}
    values: dict[str, dict[str, Any]] = {group: {} for group in START_GROUPS}
    for word in (word for word in words if word not in of_run):
        group, key, value = _read(word)
        if key:
            values[group][key] = value
        else:
            chosen[group] = str(value)
    made = {}
    for group in START_GROUPS:
        stated: Mapping[str, Any]
        if group in chosen or not recorded:
            stated = _stated(group, chosen.get(group, DEFAULTS[group]), config_dir)
        else:
            stated = recorded[group]
        if group == "hydra/sweeper" and is_sweep:
            stated = _over(stated, stated_by_recipe(of_run, config_dir))
        made[group] = _fill(group, stated, values[group])
    for group, settings in made.items():  # sweep.json has them, and a batch script
        for key, value in asdict(settings).items():
            refuse_secret(f"{group.replace('/', '.')}.{key}", value)
    given = frozenset(group for group in START_GROUPS if group in chosen or values[group])
    return of_run, Starting(made["hydra/launcher"], made["hydra/sweeper"], given)


def _over(stated: Mapping[str, Any], by_recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """A sweeper's file with what a recipe says; of `params`, key by key."""
    if not by_recipe:
        return stated
    return {**stated, **by_recipe, "params": {**(stated.get("params") or {}), **by_recipe["params"]}}


def _read(word: str) -> tuple[str, str, Any]:
    """Group, key and value of a word; the key is empty where the word chooses a file."""
    override = parse(word)
    name = override.key_or_group
    if override.is_delete() or override.package is not None:
        raise UserError(f"{word}: cannot be read", "hydra/launcher=NAME or hydra.launcher.KEY=VALUE")
    if override.is_sweep_override():
        raise UserError(f"{word}: how runs are started has one value, and is not swept over")
    value = plain(override.value())
    if name in START_GROUPS:
        if not isinstance(value, str):
            raise UserError(f"{word}: {name}= takes the name of a file", f"{name}={DEFAULTS[name]}")
        return name, "", value
    dotted = {group.replace("/", "."): group for group in START_GROUPS}
    group = next((group for prefix, group in dotted.items() if name.startswith(f"{prefix}.")), None)
    if group is None:
        known = [*START_GROUPS, *(f"{prefix}.KEY" for prefix in dotted)]
        raise UserError(f"{word}: there is no such setting of how runs are started", did_you_mean(name, known))
    key = name.removeprefix(group.replace("/", ".") + ".")
    if key == "name":
        raise UserError(f"{word}: it is chosen whole", f"{group}={value}")
    return group, key, value


def _stated(group: str, name: str, config_dir: Path | None) -> Mapping[str, Any]:
    """What the file of a choice says."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    files = choices(group, search_path(config_dir))
    if name not in files:
        raise UserError(f"{group}={name}: there is no such {group}", did_you_mean(name, files))
    try:
        stated = OmegaConf.to_container(OmegaConf.load(files[name]), resolve=True)
    except (OmegaConfBaseException, YAMLError, OSError) as error:
        raise UserError(f"{files[name]}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(stated, dict) or stated.get("name") not in SCHEMAS[group]:
        raise UserError(f"{files[name]}: must say name: {' or '.join(SCHEMAS[group])}")
    return {str(key): value for key, value in stated.items()}


def _fill(group: str, stated: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    prefix = group.replace("/", ".")
    schema = SCHEMAS[group][stated["name"]]
    merged = dict(stated)
    for key, value in given.items():
        first, _, rest = key.partition(".")
        if rest and isinstance(merged.get(first), dict):  # one entry of a mapping
            merged[first] = {**merged[first], rest: value}
        elif rest:
            raise UserError(f"{prefix}.{key}: there is no such key of {group}={stated['name']}", _hint(group, schema))
        else:
            merged[key] = value
    try:
        return from_mapping(schema, merged, prefix)
    except SettingsError as error:
        hint, is_unknown = error.hint, "no such key" in error.message
        key = error.key.removeprefix(f"{prefix}.")
        others = [name for name, other in SCHEMAS[group].items() if key in {f.name for f in fields(other)}]
        if is_unknown:
            hint = f"{group}={others[0]} has it" if others else hint or _hint(group, schema)
        raise UserError(f"{error.message} ({group}={stated['name']})", hint) from None


def _hint(group: str, schema: Any) -> str:
    known = [f.name for f in fields(schema) if f.name != "name"]
    prefix = group.replace("/", ".")
    return "known: " + ", ".join(f"{prefix}.{name}" for name in known) if known else f"{group}=NAME chooses another"


def record(starting: Starting) -> dict[str, dict[str, Any]]:
    """As `split` takes it again: group to plain settings."""
    return {"hydra/launcher": asdict(starting.launcher), "hydra/sweeper": asdict(starting.sweeper)}
