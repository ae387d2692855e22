"""Recipes and command line of `prefopt pairs` to one `PairsSettings`, as `config.py` does for runs. Nothing heavy."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from prefopt.errors import UserError, did_you_mean
from prefopt.fill import SettingsError, from_mapping, known_keys
from prefopt.masking import refuse_secret
from prefopt.merge import check_choices, leaves, merge_files, origin_of, set_by, without_environment
from prefopt.overrides import Choice, Delete, nearest, read_overrides
from prefopt.pairs.registry import KINDS, make_stage, stage_class, typed
from prefopt.pairs.settings import PairsSettings
from prefopt.recipe_files import PAIRS_TREE, search_path

NOT_IDENTITY = ("name", "out", "device", "shard", "num_processes", "tokens_per_batch")
"""Keys that do not decide what comes out but for rounding: they may differ when the same command goes on."""

MODELS = ("policy", "reward", "reference")
"""Settings that name models; a stage that uses one must be given it."""


@dataclass(frozen=True)
class PairsComposition:
    """Composed settings. origins: final dotted key to who set it. notes: lines for stderr."""

    settings: PairsSettings
    origins: dict[str, str]
    notes: tuple[str, ...]

    def sources(self) -> list[tuple[str, Any, str]]:
        """Each final key, its value, and where it came from."""
        return [(key, value, self.origins[key]) for key, value in leaves(asdict(self.settings))]


def compose_pairs(overrides: list[str], config_dir: Path | None = None) -> PairsComposition:
    """What `prefopt pairs OVERRIDES` means, every key known and of its type, and each with an effect.

    Raises: UserError for anything that cannot be composed, or would have no effect; the message names the key.
    """
    folders = search_path(config_dir, PAIRS_TREE)
    for text in overrides:
        refuse_secret(text.partition("=")[0], text)
    parsed = read_overrides(overrides, PAIRS_TREE)
    chosen = {o.group: o.name for o in parsed if isinstance(o, Choice)}
    check_choices(chosen, folders)
    with without_environment():
        merged = merge_files(chosen, folders, PAIRS_TREE)
        for override in parsed:
            if isinstance(override, Delete):
                raise UserError(f"{override.text}: nothing can be deleted here", "set another value")
            if not isinstance(override, Choice):
                _check_key(override.key, {k: str(merged.config[k]["name"]) for k in KINDS})
                merged.apply(override)
        plain = merged.resolved()
    try:
        settings = from_mapping(PairsSettings, plain)
        generate, score, select = (typed(kind, getattr(settings, kind)) for kind in KINDS)
        margins = [typed("score", margin, f"margins.{n}") for n, margin in enumerate(settings.margins)]
        settings = replace(settings, generate=generate, score=score, select=select, margins=margins)
        check_pairs(settings)
    except SettingsError as error:
        raise UserError(f"{error.message} ({origin_of(error.key, merged.origins)})", error.hint) from None
    recipe, derived = merged.choices["recipe"], {}
    if recipe and set_by("name", merged.origins) == "pairs.yaml":
        settings = replace(settings, name=recipe.split("/")[-1])
        derived["name"] = f"recipe={recipe}"
    if not settings.out:
        settings = replace(settings, out=f"pairs/{settings.name}-{identity(settings)}")
        derived["out"] = "name and identity"
    for key, value in leaves(asdict(settings)):
        refuse_secret(f"{key} ({set_by(key, merged.origins)})", value)
    origins = {key: derived.get(key) or set_by(key, merged.origins) for key, _ in leaves(asdict(settings))}
    return PairsComposition(settings, origins, tuple(merged.notes))


def deciding(settings: PairsSettings) -> dict[str, Any]:
    """The settings that decide what comes out, as plain nested dicts."""
    return {key: value for key, value in asdict(settings).items() if key not in NOT_IDENTITY}


def identity(settings: PairsSettings) -> str:
    """Ten hex digits of the sha256 of every setting that decides what comes out."""
    text = json.dumps(deciding(settings), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def check_pairs(settings: PairsSettings) -> None:
    """Refuse what is missing, out of range, or has no effect.

    Raises: SettingsError for a value; UserError naming the key that has none.
    """
    if "/" in settings.name or settings.name in ("", ".", ".."):
        raise SettingsError("name", f"{settings.name!r} is no name but a path", "another place: out=FOLDER")
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


def _check_key(key: str, stages: dict[str, str]) -> None:
    """Refuse a key that neither the schema nor the chosen stages have.

    Raises: UserError with the nearest ones.
    """
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
