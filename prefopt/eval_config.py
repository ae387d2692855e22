"""Recipes and command line of `prefopt eval` to one `EvalSettings`, as `config.py` does for runs. Nothing heavy."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from prefopt.errors import UserError, did_you_mean
from prefopt.evaluate.measure import EVERY_SETTING, ChecksSettings, Demanding, SharesWork
from prefopt.evaluate.registry import make_measure, measure_class, typed_measure
from prefopt.evaluate.settings import EvalSettings
from prefopt.fill import SettingsError, from_mapping, known_keys
from prefopt.masking import refuse_secret
from prefopt.merge import check_choices, leaves, merge_files, origin_of, set_by, without_environment
from prefopt.overrides import Choice, Delete, nearest, read_overrides
from prefopt.recipe_files import EVAL_TREE, search_path

NOT_IDENTITY = ("name", "out", "run", "device", "num_processes", "tokens_per_batch")
"""Keys that do not decide the figures but for rounding. The run lies around the folder, or its model decides."""

MODELS = ("model", "reference", "reward")
"""Settings that name models: one that the measure does not look at is refused, since it would have no effect."""


@dataclass(frozen=True)
class EvalComposition:
    """Composed settings. origins: final dotted key to who set it. notes: lines for stderr."""

    settings: EvalSettings
    origins: dict[str, str]
    notes: tuple[str, ...]

    def sources(self) -> list[tuple[str, Any, str]]:
        """Each final key, its value, and where it came from."""
        return [(key, value, self.origins[key]) for key, value in leaves(asdict(self.settings))]


def compose_eval(overrides: list[str], config_dir: Path | None = None) -> EvalComposition:
    """What `prefopt eval OVERRIDES` means, every key known and of its type, and each with an effect.

    Raises: UserError for anything that cannot be composed, or would have no effect; the message names the key.
    """
    folders = search_path(config_dir, EVAL_TREE)
    for text in overrides:
        refuse_secret(text.partition("=")[0], text)
    parsed = read_overrides(overrides, EVAL_TREE)
    chosen = {o.group: o.name for o in parsed if isinstance(o, Choice)}
    check_choices(chosen, folders)
    with without_environment():
        merged = merge_files(chosen, folders, EVAL_TREE)
        for override in parsed:
            if isinstance(override, Delete):
                raise UserError(f"{override.text}: nothing can be deleted here", "set another value")
            if not isinstance(override, Choice):
                _check_key(override.key, str(merged.config["measure"]["name"]))
                merged.apply(override)
        plain = merged.resolved()
    try:
        settings = from_mapping(EvalSettings, plain)
        settings = replace(settings, measure=typed_measure(settings.measure))
        check_eval(settings)
    except SettingsError as error:
        raise UserError(f"{error.message} ({origin_of(error.key, merged.origins)})", error.hint) from None
    derived = {}
    if set_by("name", merged.origins) == "eval.yaml":
        settings = replace(settings, name=settings.measure["name"])
        derived["name"] = f"measure={settings.name}"
    if not settings.out:
        place = Path(settings.run) / "eval" if settings.run else Path("eval")
        settings = replace(settings, out=str(place / f"{settings.name}-{identity(settings)}"))
        derived["out"] = "name and identity"
    for key, value in leaves(asdict(settings)):
        refuse_secret(f"{key} ({set_by(key, merged.origins)})", value)
    origins = {key: derived.get(key) or set_by(key, merged.origins) for key, _ in leaves(asdict(settings))}
    return EvalComposition(settings, origins, tuple(merged.notes))


def deciding(settings: EvalSettings) -> dict[str, Any]:
    """The settings that decide the figures, as plain nested dicts."""
    return {key: value for key, value in asdict(settings).items() if key not in NOT_IDENTITY}


def identity(settings: EvalSettings) -> str:
    """Ten hex digits of the sha256 of every setting that decides the figures."""
    text = json.dumps(deciding(settings), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def check_eval(settings: EvalSettings) -> None:
    """Refuse what is missing, out of range, or has no effect.

    Raises: SettingsError for a value; UserError naming the key that has none.
    """
    if "/" in settings.name or settings.name in ("", ".", ".."):
        raise SettingsError("name", f"{settings.name!r} is no name but a path", "another place: out=FOLDER")
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


def _check_key(key: str, name: str) -> None:
    """Refuse a key that neither the schema nor the measure has. name: of the measure.

    Raises: UserError with the nearest ones.
    """
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
