"""Between recipes and settings: what `prefopt eval` and `prefopt pairs` have alike. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from prefopt.errors import UserError
from prefopt.fill import SettingsError, from_mapping
from prefopt.manifest import differences
from prefopt.masking import refuse_secret
from prefopt.merge import Merged, check_choices, leaves, merge_files, origin_of, set_by, without_environment
from prefopt.model.trust import ADAPTER_CONFIG
from prefopt.overrides import Choice, Delete, read_overrides
from prefopt.recipe_files import Tree, search_path

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")


@dataclass(frozen=True)
class Composition(Generic[S]):
    """Composed settings. origins: final dotted key to who set it. notes: lines for stderr."""

    settings: S
    origins: dict[str, str]
    notes: tuple[str, ...]

    def sources(self) -> list[tuple[str, Any, str]]:
        """Each final key, its value, and where it came from."""
        return [(key, value, self.origins[key]) for key, value in leaves(asdict(self.settings))]


def merge_words(
    overrides: list[str],
    config_dir: Path | None,
    tree: Tree,
    check_key: Callable[[str, Mapping[str, Any]], None],
    key_for: Callable[[Path], str],
) -> tuple[Merged, dict[str, Any]]:
    """The files and words of a command, merged, and their plain values.

    check_key: refuses a key that neither the schema nor what is chosen has; it sees what is merged so far.
    key_for: the key that a path was meant for which stands alone.

    Raises: UserError for anything that cannot be composed, or looks like a secret.
    """
    folders = search_path(config_dir, tree)
    for text in overrides:
        refuse_secret(text.partition("=")[0], text)
        if text and "=" not in text and not text.startswith(("-", "~")):
            hint = f"for instance {key_for(Path(text))}={text}"
            if "recipe" in tree.groups and text.endswith((".yaml", ".yml")):
                hint = f"recipe={Path(text).stem}, a file in recipes/{tree.root}/recipe"
            raise UserError(f"{text}: expected key=value", hint)
    parsed = read_overrides(overrides, tree)
    chosen = {o.group: o.name for o in parsed if isinstance(o, Choice)}
    check_choices(chosen, folders, tree)
    with without_environment():
        merged = merge_files(chosen, folders, tree)
        for override in parsed:
            if isinstance(override, Delete):
                raise UserError(f"{override.text}: nothing can be deleted here", "set another value")
            if not isinstance(override, Choice):
                check_key(override.key, merged.config)
                merged.apply(override)
        return merged, merged.resolved()


def is_model(path: Path) -> bool:
    """Whether a folder holds a model or adapters."""
    return any((path / name).is_file() for name in ("config.json", ADAPTER_CONFIG))


def typed_settings(schema: type[S], plain: dict[str, Any], merged: Merged, finish: Callable[[S], S]) -> S:
    """The schema filled and finished. finish: types what the schema leaves open, and checks all.

    Raises: UserError for a value that does not fit, naming the file or word that set it.
    """
    try:
        return finish(from_mapping(schema, plain))
    except SettingsError as error:
        raise UserError(f"{error.message} ({origin_of(error.key, merged.origins)})", error.hint) from None


def composition(settings: S, merged: Merged, derived: Mapping[str, str]) -> Composition[S]:
    """Settings with the origin of every key. derived: keys that were worked out, and from what.

    Raises: UserError for a value that looks like a secret.
    """
    origins = {}
    for key, value in leaves(asdict(settings)):
        refuse_secret(f"{key} ({set_by(key, merged.origins)})", value)
        origins[key] = derived.get(key) or set_by(key, merged.origins)
    return Composition(settings, origins, tuple(merged.notes))


def differing(found: Mapping[str, Any], about: Mapping[str, Any]) -> list[str]:
    """What differs between two manifests, a line for each leaf, there -> here; none where they are the same.

    found, about: "settings", whose leaves are shown, and other keys ("models", "files") to digests by name. Of a stage
    that was exchanged its name is shown, and of a model that a setting now names or no longer names, the setting.
    """
    old, new = ({key: value for key, value in one["settings"].items() if value is not None} for one in (found, about))
    changed = differences(old, new)
    exchanged = tuple(one.key.removesuffix("name") for one in changed if one.key.endswith(".name"))
    lines = [f"settings.{one}" for one in changed if one.key.endswith(".name") or not one.key.startswith(exchanged)]
    named = {str(value) for one in changed for value in (one.old, one.new)}
    for what in sorted(about.keys() - {"settings"}):
        there, here = found[what], about[what]
        for name in sorted(there.keys() | here.keys()):
            if name in there and name in here and there[name] != here[name]:
                lines.append(f"{what}.{name}: other content (sha256 {there[name][:12]} -> {here[name][:12]})")
            elif (name in there) != (name in here) and name not in named:
                lines.append(f"{what}.{name}: only {'there' if name in there else 'here'}")
    return lines


def check_name(name: str) -> None:
    """Raises: SettingsError where it would be a path."""
    if "/" in name or name in ("", ".", ".."):
        raise SettingsError("name", f"{name!r} is no name but a path", "another place: out=FOLDER")


def identity_of(deciding: Mapping[str, Any]) -> str:
    """Ten hex digits of the sha256 of the settings that decide what comes out."""
    text = json.dumps(deciding, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
