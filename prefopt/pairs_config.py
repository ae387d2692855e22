"""Recipes and command line of `prefopt pairs` to one `PairsSettings`, as `config.py` does for runs. Nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from prefopt.errors import UserError, did_you_mean
from prefopt.fill import SettingsError, known_keys
from prefopt.merge import set_by
from prefopt.overrides import nearest
from prefopt.pairs.registry import KINDS, make_stage, stage_class, typed
from prefopt.pairs.settings import PairsSettings
from prefopt.recipe_files import PAIRS_TREE
from prefopt.stage_config import (
    Composition,
    check_name,
    composition,
    identity_of,
    is_model,
    merge_words,
    typed_settings,
)

NOT_IDENTITY = ("name", "out", "device", "shard", "num_processes", "tokens_per_batch")
"""Keys that do not decide what comes out but for rounding: they may differ when the same command goes on."""

MODELS = ("policy", "reward", "reference")
"""Settings that name models; a stage that uses one must be given it."""


PairsComposition = Composition[PairsSettings]


def compose_pairs(overrides: list[str], config_dir: Path | None = None) -> PairsComposition:
    """What `prefopt pairs OVERRIDES` means, every key known and of its type, and each with an effect.

    Raises: UserError for anything that cannot be composed, or would have no effect; the message names the key.
    """
    merged, plain = merge_words(overrides, config_dir, PAIRS_TREE, _check_key, _key_for)
    settings = typed_settings(PairsSettings, plain, merged, _finished)
    recipe, derived = merged.choices["recipe"], {}
    if recipe and set_by("name", merged.origins) == "pairs.yaml":
        settings = replace(settings, name=recipe.split("/")[-1])
        derived["name"] = f"recipe={recipe}"
    if not settings.out:
        settings = replace(settings, out=f"pairs/{settings.name}-{identity(settings)}")
        derived["out"] = "name and identity"
    return composition(settings, merged, derived)


def _finished(settings: PairsSettings) -> PairsSettings:
    generate, score, select = (typed(kind, getattr(settings, kind)) for kind in KINDS)
    margins = [typed("score", margin, f"margins.{n}") for n, margin in enumerate(settings.margins)]
    settings = replace(settings, generate=generate, score=score, select=select, margins=margins)
    check_pairs(settings)
    return settings


def deciding(settings: PairsSettings) -> dict[str, Any]:
    """The settings that decide what comes out, as plain nested dicts."""
    return {key: value for key, value in asdict(settings).items() if key not in NOT_IDENTITY}


def identity(settings: PairsSettings) -> str:
    """Ten hex digits of the sha256 of every setting that decides what comes out."""
    return identity_of(deciding(settings))


def check_pairs(settings: PairsSettings) -> None:
    """Refuse what is missing, out of range, or has no effect.

    Raises: SettingsError for a value; UserError naming the key that has none.
    """
    check_name(settings.name)
    _check_policy(settings.policy)
    if not settings.prompts:
        raise UserError("prompts: no file is given", "prompts=FILE: rows with a prompt, as prefopt train reads them")
    for key in ("chunk_size", "tokens_per_batch", "max_prompt_tokens"):
        if getattr(settings, key) < 1:
            raise SettingsError(key, f"must be 1 or more, not {getattr(settings, key)}")
    for optional in ("limit", "num_processes"):
        value = getattr(settings, optional)
        if value is not None and value < 1:
            raise SettingsError(optional, f"must be 1 or more, not {value}", f"{optional}=null: as many as there are")
    scorers = {"score": settings.score, **{f"margins.{n}": margin for n, margin in enumerate(settings.margins)}}
    users: dict[str, list[str]] = {key: [] for key in MODELS}
    if make_stage("generate", settings.generate).needs_policy:
        users["policy"].append(f"generate={settings.generate['name']}")
    for where, scorer in scorers.items():
        for key in make_stage("score", scorer, where).uses:
            users[key].append(f"{where}={scorer['name']}")
    for key in MODELS:
        if users[key] and not getattr(settings, key):
            raise UserError(f"{key}: no model is given, and {users[key][0]} uses it", f"{key}=FOLDER or a hub name")
        if getattr(settings, key) and not users[key]:
            raise SettingsError(
                key,
                f"{getattr(settings, key)} has no effect: no stage uses it (generate={settings.generate['name']},"
                f" score={settings.score['name']})",
                "leave it out, or choose a stage that does",
            )


def _check_policy(policy: Any) -> None:
    """Raises: SettingsError where it is neither a text nor a list of different texts."""
    several = policy if isinstance(policy, list) else [policy]
    if not all(isinstance(path, str) and (path or policy == "") for path in several):
        raise SettingsError("policy", f"expected a model's folder or hub name, or a list of them, got {policy!r}")
    if len(set(several)) < len(several):
        raise SettingsError("policy", f"{policy!r} names a model twice", "generate.n=N asks one model for more answers")


def _key_for(path: Path) -> str:
    """What a path was meant for that stands alone: a model, a data file, or else the name of a recipe."""
    if is_model(path):
        return "policy"
    return "prompts" if path.exists() or path.suffix or len(path.parts) > 1 else "recipe"


def _check_key(key: str, config: Mapping[str, Any]) -> None:
    """Refuse a key that neither the schema nor the chosen stages have.

    Raises: UserError with the nearest ones.
    """
    stages = {kind: str(config[kind]["name"]) for kind in KINDS}
    kind, _, rest = key.partition(".")
    if kind in KINDS and rest:
        if rest == "name":
            raise UserError(f"{key}: a stage is chosen whole", f"{kind}=NAME")
        known = {f.name for f in fields(stage_class(kind, stages[kind]))}
        if rest.partition(".")[0] not in known:
            raise UserError(f"{key}: {stages[kind]} has no such setting", did_you_mean(rest, known))
        return
    known = {k for k in known_keys(PairsSettings) if k not in KINDS}
    spelt = key.partition(".")[0] if key.startswith(("margins.", "avoid.")) else key
    if spelt not in known:
        known |= {f"{k}.{f.name}" for k in KINDS for f in fields(stage_class(k, stages[k]))}
        raise UserError(f"{key}: there is no such key", nearest(key, known))
