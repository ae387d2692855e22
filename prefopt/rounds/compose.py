"""A recipe of a loop and the words of a command line to one `Loop`, everything read and of its type.

Last wins: recipes/rounds/rounds.yaml, recipes/rounds/recipe/NAME.yaml, the command line. The command line may set name,
dir, rounds, seed, and the inputs that the recipe has; steps are said by the recipe.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt.errors import UserError, did_you_mean
from prefopt.fill import SettingsError, from_mapping
from prefopt.masking import refuse_secret
from prefopt.merge import leaves, without_environment
from prefopt.recipe_files import RecipeFolder, choices, search_path
from prefopt.rounds.placeholders import PLACEHOLDER
from prefopt.rounds.settings import COMMANDS, Loop, RoundsSettings, Step, deciding

if TYPE_CHECKING:
    from omegaconf import DictConfig

TREE = "rounds"
GROUP = f"{TREE}/recipe"
MAIN = f"{TREE}/rounds.yaml"
_SET_BY_WORDS = ("name", "dir", "rounds", "seed")
_STEP_KEYS = ("name", "run", "with")
_A_STEP = "{name: NAME, run: train or pairs, with: [WORD, ...]}"
_RESERVED = ("inputs", "seed", "round")
_NAME = re.compile(r"[A-Za-z]\w*")
_LOOP_NAME = re.compile(r"[^\W_][^/\\\x00-\x1f\x7f]{0,79}")


def compose(words: list[str], config_dir: Path | None = None) -> Loop:
    """The loop that `prefopt rounds WORDS` means.

    Raises: UserError for a recipe, key, value, step or input that cannot be; the message names the file or the word.
    """
    for word in words:
        refuse_secret(word.partition("=")[0], word)
    values = dict(_read(word) for word in words)
    folders = search_path(config_dir)
    recipe = values.pop("recipe", None)
    files = choices(GROUP, folders)
    if recipe is None:
        raise UserError("prefopt rounds: which loop? recipe=NAME is missing", "known: " + ", ".join(files))
    if recipe not in files:
        raise UserError(f"recipe={recipe}: there is no such loop", did_you_mean(str(recipe), files))
    shown = _shown(files[str(recipe)], folders)
    with without_environment():
        plain = _merged([(_main(folders), MAIN), (files[str(recipe)], shown)], values, shown)
    try:
        settings = from_mapping(RoundsSettings, plain)
    except SettingsError as error:
        raise UserError(f"{shown}: {error.message}", error.hint) from None
    _check_values(settings, shown)
    if "name" not in values and settings.name == RoundsSettings().name:
        settings = replace(settings, name=str(recipe).rpartition("/")[2])
    if not _LOOP_NAME.fullmatch(settings.name):
        must_be = "begin with a letter or digit and hold no / and no line break, in at most 80 characters"
        raise UserError(f"name must {must_be}, not {settings.name[:99]!r}")
    if not settings.dir:
        settings = replace(settings, dir=f"rounds/{settings.name}-{identity(settings)}")
    for key, value in leaves(asdict(settings)):
        refuse_secret(f"{key} ({shown})", value)
    before, steps, after = (_steps(getattr(settings, where), where, shown) for where in ("before", "steps", "after"))
    given = frozenset(key.removeprefix("inputs.") for key in values if key.startswith("inputs."))
    loop = Loop(shown, settings, before, steps, after, given)
    _check_names(loop)
    return loop


def identity(settings: RoundsSettings) -> str:
    """Ten hex digits of the sha256 of every setting that decides what a round does."""
    text = json.dumps(deciding(settings), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _read(word: str) -> tuple[str, Any]:
    """Key and value of a word. Values are YAML, so that `inputs.training=[optim.lr=1e-4, loss.beta=0.2]` is a list."""
    import yaml

    key, sign, text = word.partition("=")
    if not sign or not key:
        hint = "for instance rounds=3 or inputs.policy=FOLDER"
        if word.endswith((".yaml", ".yml")):
            hint = f"recipe={Path(word).stem}, a file in recipes/rounds/recipe"
        raise UserError(f"{word}: expected key=value", hint)
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise UserError(f"{word}: cannot be read ({said})", f"quote the value: {key}='\"...\"'") from None


def _main(folders: list[RecipeFolder]) -> Path:
    return next(file for folder in folders if (file := folder.path / MAIN).is_file())


def _shown(file: Path, folders: list[RecipeFolder]) -> str:
    """What messages call a recipe file: as prefopt's own recipes or by the folder it was found in."""
    folder = next(f for f in folders if file.is_relative_to(f.path))
    name = file.relative_to(folder.path).as_posix()
    return name if folder.is_packaged else f"{folder.shown}/{name}"


def _merged(files: list[tuple[Path, str]], values: Mapping[str, Any], shown: str) -> dict[str, Any]:
    """The files, one over the other, and the command line over both, with interpolations resolved."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = OmegaConf.create()
    for file, name in files:
        config.merge_with(_load(file, name))
    for key, value in values.items():
        _check_key(key, config, shown)
        try:
            OmegaConf.update(config, key, value, merge=False, force_add=True)
        except OmegaConfBaseException:  # a date, for instance
            raise UserError(f"{key}={value}: expected text, a number or a list of words", "quote it") from None
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        said = str(error).strip().splitlines()[0]
        raise UserError(f"{shown}: {error.full_key}: {said}", _how_to_give(str(error.full_key))) from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _load(file: Path, name: str) -> DictConfig:
    import yaml
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        loaded = OmegaConf.load(file)
    except (OmegaConfBaseException, yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(loaded, DictConfig):
        raise UserError(f"{name}: expected keys and values")
    return loaded


def _how_to_give(key: str) -> str:
    return f"give it: {key}=VALUE" if key.startswith("inputs.") else ""


def _check_key(key: str, config: DictConfig, shown: str) -> None:
    if key in _SET_BY_WORDS:
        return
    group, _, name = key.partition(".")
    if group == "inputs" and name:
        if name not in config.inputs:
            raise UserError(f"{key}: {shown} has no such input", did_you_mean(name, [str(k) for k in config.inputs]))
        return
    if group in {f.name for f in fields(RoundsSettings)}:
        raise UserError(
            f"{key}: is said by the recipe, not on the command line",
            f"write a recipe of your own, ./recipes/{GROUP}/NAME.yaml, or use its inputs: "
            + ", ".join(f"inputs.{k}" for k in config.inputs),
        )
    known = [*_SET_BY_WORDS, "recipe", *(f"inputs.{k}" for k in config.inputs)]
    raise UserError(f"{key}: there is no such key", did_you_mean(key, known))


def _check_values(settings: RoundsSettings, shown: str) -> None:
    if settings.rounds < 1:
        raise UserError(f"rounds must be 1 or more, not {settings.rounds} ({shown})")
    if settings.seed < 0:
        raise UserError(f"seed must be 0 or more, not {settings.seed} ({shown})")
    if not settings.steps:
        raise UserError(f"{shown}: steps is empty", f"a list of {_A_STEP}")
    for name, value in settings.inputs.items():
        where = f"{shown}: inputs.{name}"
        if value is None:
            raise UserError(f"{where} must be given", f"inputs.{name}=VALUE")
        is_words = isinstance(value, list) and all(isinstance(word, str) for word in value)
        if not is_words and not isinstance(value, str | int | float):
            raise UserError(f"{where}: expected text, a number or a list of words, got {value!r}", "quote each word")
        if isinstance(value, str) and (found := PLACEHOLDER.search(value)):
            raise UserError(
                f"{where}: {found[0]} is not filled in here", "placeholders stand in the words of steps, and in lists"
            )
    for name, carried in settings.carry.items():
        for key in ("first", "then"):
            if not getattr(carried, key):
                raise UserError(f"{shown}: carry.{name}.{key} is not set", "its value in round 1, and in the next ones")


def _steps(raw: list[Any], where: str, shown: str) -> tuple[Step, ...]:
    return tuple(_step(one, f"{shown}: {where}.{number}", where) for number, one in enumerate(raw))


def _step(raw: Any, where: str, part: str) -> Step:
    if not isinstance(raw, Mapping):
        raise UserError(f"{where}: expected {{name, run, with}}, got {raw!r}")
    name = raw.get("name")
    if isinstance(name, str) and name:
        where = f"{where.rpartition(':')[0]}: step {name} of {part}"
    for key in raw:
        if key not in _STEP_KEYS:
            raise UserError(f"{where}: there is no key {key!r}", did_you_mean(str(key), _STEP_KEYS))
    for key in _STEP_KEYS:
        if raw.get(key) is None:
            raise UserError(f"{where}: {key} is not set", f"a step is {_A_STEP}")
    run, words = raw["run"], raw["with"]
    if run not in COMMANDS:
        raise UserError(f"{where}: there is no command {run!r} to run", did_you_mean(str(run), COMMANDS))
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        wrong = next((w for w in words if not isinstance(w, str)), words) if isinstance(words, list) else words
        raise UserError(f"{where}: with: expected a list of words, got {wrong!r}", "quote each word: 'loss.beta=0.1'")
    return Step(str(name), run, tuple(words))


def _check_names(loop: Loop) -> None:
    """Names become folders and placeholders: each is one word, there once."""
    seen: dict[str, str] = dict.fromkeys(_RESERVED, "a placeholder of every loop")
    named = [("carry", name) for name in loop.settings.carry]
    named += [("step", step.name) for step in loop.all_steps]
    for kind, name in named:
        if not _NAME.fullmatch(name):
            raise UserError(f"{loop.shown}: {kind} {name!r}: a name is letters, digits and _, a letter first")
        if name in seen:
            raise UserError(f"{loop.shown}: {kind} {name}: the name is taken, by {seen[name]}", "give it another one")
        seen[name] = {"carry": "a carried value", "step": "a step"}[kind]
    for name in loop.settings.inputs:
        if not _NAME.fullmatch(name):
            raise UserError(f"{loop.shown}: inputs {name!r}: a name is letters, digits and _, a letter first")
