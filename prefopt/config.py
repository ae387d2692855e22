"""Recipes and command line to one `RunSettings`: composed once, in the parent process, by Hydra's own loader.

Last wins: recipes/train.yaml, the group files, the recipe, the command line. A group chosen on the command line is
taken whole: where it differs from the recipe's choice, the recipe's values for that group are left out (a beta for DPO
means nothing to SimPO) and a note says so. Nothing heavy is imported: no torch, no transformers.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from prefopt.batch import HasNotes
from prefopt.errors import UserError
from prefopt.fill import SettingsError, from_mapping
from prefopt.losses import loss_class, make_loss
from prefopt.masking import refuse_secret
from prefopt.merge import Merged, check_choices, leaves, merge_files, origin_of, set_by, without_environment
from prefopt.overrides import Choice, Delete, Set, check_key, read_overrides
from prefopt.recipe_files import search_path
from prefopt.recipe_notes import recipe_notes
from prefopt.settings import RunSettings, SampleSettings

NOT_IDENTITY = (
    "name",
    "dir",
    "tracker",
    "train.log_every",
    "train.save_every",
    "train.keep_checkpoints",
    "train.on_nonfinite",
    "train.max_skipped_steps",
    "sample.every",
    "sample.on_collapse",
    "sample.max_repetition",
    "sample.max_drift",
    "data.num_workers",
    "data.cache_dir",
    "launch",
    "deepspeed",
    "fsdp",
)
"""Keys that do not decide the numbers: they may differ when a run is continued. Where a run takes place and by which
engine changes rounding alone (1e-5 in float32), and a run that waits in a queue must find its folder elsewhere. A run
that ended on numbers that are not finite, or on a collapse, may go on with another answer to it: where a step is
skipped the run would else have ended, so that there is no other run to mix it up with."""


@dataclass(frozen=True)
class Composition:
    """A composed run. origins: final dotted key to the file or "command line" that set it. notes: lines for stderr."""

    run: RunSettings
    origins: dict[str, str]
    notes: tuple[str, ...]


def compose(overrides: list[str], config_dir: Path | None = None) -> RunSettings:
    """The run that `prefopt train OVERRIDES` means, interpolations resolved, every key known and of its type.

    Raises: UserError for anything that cannot be composed; the message names the key or the file.
    """
    return compose_with_origins(overrides, config_dir).run


def sources(overrides: list[str], config_dir: Path | None = None) -> list[tuple[str, Any, str]]:
    """Each final key, its value, and where it came from."""
    composition = compose_with_origins(overrides, config_dir)
    return list_sources(composition)


def list_sources(composition: Composition) -> list[tuple[str, Any, str]]:
    """Each final key of a composition, its value, and where it came from."""
    return [(key, value, composition.origins[key]) for key, value in leaves(asdict(composition.run))]


def compose_with_origins(overrides: list[str], config_dir: Path | None = None) -> Composition:
    """As `compose`, with the origin of each value and the notes that a user should see.

    Raises: UserError as `compose`.
    """
    folders = search_path(config_dir)
    for text in overrides:  # also one that a later word takes back: the manifest and sweep.json have them all
        refuse_secret(text.partition("=")[0], text)
    parsed = read_overrides(overrides)
    chosen = {o.group: o.name for o in parsed if isinstance(o, Choice)}
    check_choices(chosen, folders)
    with without_environment():
        merged = merge_files(chosen, folders)
        method = _method(merged)
        for override in parsed:
            if not isinstance(override, Choice):
                check_key(override, loss_fields=_loss_fields(method), method=method)
                merged.apply(override)
        _refuse_untold(merged, parsed)
        plain = merged.resolved()
    try:
        run = from_mapping(RunSettings, plain)
        run = replace(run, loss=_typed_loss(run.loss))
    except SettingsError as error:
        raise _with_origin(error, merged.origins) from None
    loss = make_loss(run.loss)
    if isinstance(loss, HasNotes):
        merged.notes.extend(f"loss={run.loss['name']}: {note}" for note in loss.notes)
    merged.notes.extend(recipe_notes(run, merged.origins))
    run = _without_samples(run, merged)
    run, derived = _name_and_dir(run, merged)
    for key, value in leaves(asdict(run)):
        refuse_secret(f"{key} ({set_by(key, merged.origins)})", value)
    origins = {key: derived.get(key) or set_by(key, merged.origins) for key, _ in leaves(asdict(run))}
    return Composition(run, origins, tuple(merged.notes))


def identity(run: RunSettings) -> str:
    """Ten hex digits of the sha256 of every setting that decides the numbers."""
    text = json.dumps(deciding(run), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def deciding(run: RunSettings) -> dict[str, Any]:
    """The settings that decide the numbers, as plain nested dicts."""
    settings = asdict(run)
    for key in NOT_IDENTITY:
        *parents, last = key.split(".")
        node = settings
        for parent in parents:
            node = node[parent]
        del node[last]
    return settings


def _method(merged: Merged) -> str:
    """The name of the loss, which must be the file that was chosen: else values of two methods would be mixed."""
    from omegaconf import OmegaConf

    method = OmegaConf.select(merged.config, "loss.name")
    chosen = merged.choices["loss"]
    held = [o for key, o in merged.origins if key == "loss.name"]
    if any(origin.split("/")[-2] != "loss" for origin in held):
        raise UserError(
            f"loss.name is set in {held[-1]} over loss={chosen}",
            f"a recipe chooses a method in its defaults list: - override /loss: {method}",
        )
    return str(method)


def _refuse_untold(merged: Merged, parsed: list[Choice | Set | Delete]) -> None:
    """Refuse one run of a recipe that is a sweep, while a key that it sweeps over has no value of this run's own."""
    told = {override.group if isinstance(override, Choice) else override.key for override in parsed}
    params = merged.sweeper.get("params", {})
    left = [key for key in params if key not in told and key.partition(".")[0] not in told]
    if left:
        one = " ".join(f"{key}={str(params[key]).partition(',')[0]}" for key in left)
        raise UserError(
            f"recipe={merged.choices['recipe']} is a sweep over {', '.join(params)}",
            f"prefopt train -m runs it; one run of it needs a value of each: {one}",
        )


def _typed_loss(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the method, every one there and of its type, so that lam=1 and lam=1.0 are the same run."""
    name, given = settings["name"], {key: value for key, value in settings.items() if key != "name"}
    try:
        loss: Any = from_mapping(loss_class(name), given, "loss")
    except ValueError as error:
        raise UserError(f"loss={name}: {error}") from None
    return {"name": name, **asdict(loss)}


def _without_samples(run: RunSettings, merged: Merged) -> RunSettings:
    """A recipe's samples are left out, with a note, where the method trains a reward model, which writes no answers."""
    held = set_by("sample.count", merged.origins)
    if not run.sample.count or held == "command line" or "rewards" not in make_loss(run.loss).needs:
        return run
    merged.notes.append(f"sample.count={run.sample.count} of {held} is left out: a reward model writes no answers")
    usual, kept = SampleSettings(), ("max_new_tokens", "temperature", "top_p")
    return replace(run, sample=replace(usual, **{key: getattr(run.sample, key) for key in kept}))


def _loss_fields(method: str) -> set[str]:
    return {f.name for f in fields(loss_class(method))}


def _name_and_dir(run: RunSettings, merged: Merged) -> tuple[RunSettings, dict[str, str]]:
    """The run with its name and folder filled in where nobody gave them, and how they were derived."""
    derived = {}
    recipe = merged.choices["recipe"]
    if recipe and set_by("name", merged.origins) == "train.yaml":
        run = replace(run, name=recipe.split("/")[-1])
        derived["name"] = f"recipe={recipe}"
    if not run.dir:
        run = replace(run, dir=f"runs/{run.name}-{identity(run)}")
        derived["dir"] = "name and identity"
    return run, derived


def _with_origin(error: SettingsError, origins: list[tuple[str, str]]) -> UserError:
    return UserError(f"{error.message} ({origin_of(error.key, origins)})", error.hint)
