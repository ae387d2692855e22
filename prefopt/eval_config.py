"""Recipes and command line of `prefopt eval` to one `EvalSettings`, as `config.py` does for runs. Nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from prefopt.errors import UserError, did_you_mean
from prefopt.evaluate.measure import EVERY_SETTING, ChecksSettings, Demanding, SharesWork
from prefopt.evaluate.registry import make_measure, measure_class, typed_measure
from prefopt.evaluate.settings import EvalSettings
from prefopt.fill import SettingsError, known_keys
from prefopt.merge import set_by
from prefopt.overrides import nearest
from prefopt.recipe_files import EVAL_TREE
from prefopt.run_folder import RUN
from prefopt.stage_config import Composition, check_name, composition, identity_of, merge_words, typed_settings

NOT_IDENTITY = ("name", "out", "run", "device", "num_processes", "tokens_per_batch")
"""Keys that do not decide the figures but for rounding. The run lies around the folder, or its model decides."""

MODELS = ("model", "reference", "reward")
"""Settings that name models: one that the measure does not look at is refused, since it would have no effect."""


EvalComposition = Composition[EvalSettings]


def compose_eval(overrides: list[str], config_dir: Path | None = None) -> EvalComposition:
    """What `prefopt eval OVERRIDES` means, every key known and of its type, and each with an effect.

    Raises: UserError for anything that cannot be composed, or would have no effect; the message names the key.
    """
    merged, plain = merge_words(overrides, config_dir, EVAL_TREE, _check_key, _key_for)
    settings = typed_settings(EvalSettings, plain, merged, _finished)
    derived = {}
    if set_by("name", merged.origins) == "eval.yaml":
        settings = replace(settings, name=settings.measure["name"])
        derived["name"] = f"measure={settings.name}"
    if not settings.out:
        place = Path(settings.run) / "eval" if settings.run else Path("eval")
        settings = replace(settings, out=str(place / f"{settings.name}-{identity(settings)}"))
        derived["out"] = "name and identity"
    return composition(settings, merged, derived)


def _finished(settings: EvalSettings) -> EvalSettings:
    settings = replace(settings, measure=typed_measure(settings.measure))
    check_eval(settings)
    return settings


def deciding(settings: EvalSettings) -> dict[str, Any]:
    """The settings that decide the figures, as plain nested dicts."""
    return {key: value for key, value in asdict(settings).items() if key not in NOT_IDENTITY}


def identity(settings: EvalSettings) -> str:
    """Ten hex digits of the sha256 of every setting that decides the figures."""
    return identity_of(deciding(settings))


def check_eval(settings: EvalSettings) -> None:
    """Refuse what is missing, out of range, or has no effect.

    Raises: SettingsError for a value; UserError naming the key that has none.
    """
    check_name(settings.name)
    for key in ("tokens_per_batch", "resamples"):
        if getattr(settings, key) < 1:
            raise SettingsError(key, f"must be 1 or more, not {getattr(settings, key)}")
    if settings.num_processes is not None and settings.num_processes < 1:
        raise SettingsError("num_processes", f"must be 1 or more, not {settings.num_processes}", "or null")
    if not 0 <= settings.seed < 2**32:
        raise SettingsError("seed", f"must be in [0, 2**32), not {settings.seed}")
    if settings.run and settings.model:
        raise UserError("run and model are both given: which one is to be measured?", "leave one of them out")
    measure, name = make_measure(settings.measure), settings.measure["name"]
    for key in MODELS:
        if getattr(settings, key) and key not in measure.uses:
            used = ", ".join(sorted(measure.uses)) or "no model"
            raise SettingsError(
                key,
                f"{getattr(settings, key)} has no effect: measure={name} does not look at it (it uses {used})",
                "leave it out, or choose another measure",
            )
    for key in sorted(EVERY_SETTING - measure.reads):
        if getattr(settings, key) != getattr(EvalSettings(), key):
            raise SettingsError(
                key, f"{getattr(settings, key)} has no effect: measure={name} does not look at it", "leave it out"
            )
    given = {key for key in MODELS if getattr(settings, key)} | ({"model", "reference"} if settings.run else set())
    lacking = sorted(measure.needs - given) if isinstance(measure, Demanding) else []
    if lacking:
        hint = "run=RUN for a run of prefopt train, or model=MODEL" if "model" in lacking else ""
        raise UserError(
            f"{lacking[0]}: no model is given, and measure={name} needs one",
            hint or f"{lacking[0]}=FOLDER or a hub name",
        )
    if isinstance(measure, ChecksSettings):
        measure.check(settings)
    if settings.num_processes not in (None, 1) and not isinstance(measure, SharesWork):
        raise SettingsError(
            "num_processes", f"{settings.num_processes} has no effect: measure={name} has one process", "leave it out"
        )


def _key_for(path: Path) -> str:
    """What a path was meant for that stands alone: a run, a model, or else the name of a measure."""
    return "run" if (path / RUN).is_file() else "model" if path.is_dir() or len(path.parts) > 1 else "measure"


def _check_key(key: str, config: Mapping[str, Any]) -> None:
    """Refuse a key that neither the schema nor the chosen measure has.

    Raises: UserError with the nearest ones.
    """
    name = str(config["measure"]["name"])
    of_measure = {f.name for f in fields(measure_class(name))}
    group, _, rest = key.partition(".")
    if group == "measure" and rest:
        if rest == "name":
            raise UserError(f"{key}: a measure is chosen whole", "measure=NAME")
        if rest.partition(".")[0] not in of_measure:
            raise UserError(f"{key}: {name} has no such setting", did_you_mean(rest, of_measure))
        return
    known = {k for k in known_keys(EvalSettings) if k != "measure"}
    if key not in known:
        raise UserError(f"{key}: there is no such key", nearest(key, known | {f"measure.{f}" for f in of_measure}))
