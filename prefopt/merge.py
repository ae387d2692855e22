"""Recipe files to one configuration, merged in Hydra's order, with who set what.

Hydra's own loader reads files, defaults lists and packages; used like this it writes nothing and changes no folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prefopt.errors import UserError, did_you_mean
from prefopt.overrides import Delete, Set
from prefopt.recipe_files import TRAIN_TREE, RecipeFolder, Tree, choices
from prefopt.recipe_hints import no_such_choice, not_chosen_like_that

if TYPE_CHECKING:
    from hydra._internal.config_repository import CachingConfigRepository
    from omegaconf import DictConfig

COMMAND_LINE = "command line"


def leaves(mapping: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything that is not a non-empty mapping; a list is one value."""
    for name, value in mapping.items():
        key = f"{where}.{name}" if where else str(name)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, key)
        else:
            yield key, value


class Merged:
    """The configuration while it is merged, with who set what."""

    def __init__(self, chosen: dict[str, str | None]) -> None:
        from omegaconf import OmegaConf

        self.config: DictConfig = OmegaConf.create()
        self.origins: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.choices = chosen
        self.sweeper: dict[str, Any] = {}

    def merge(self, config: DictConfig, origin: str) -> None:
        from omegaconf import OmegaConf

        self.config.merge_with(config)
        plain = OmegaConf.to_container(config, resolve=False)
        assert isinstance(plain, dict)
        self.origins += [(key, origin) for key, _ in leaves({str(k): v for k, v in plain.items()})]

    def take_sweep(self, config: DictConfig, file: str, replaced: set[str]) -> None:
        """Take out what a recipe says of a sweep: no part of a run, but of how runs are chosen (`prefopt/sweeps`).

        replaced: groups that are taken whole from the command line, whose keys the recipe does not sweep over then.
        """
        from omegaconf import OmegaConf

        if "hydra" not in config:
            return
        stated = OmegaConf.to_container(config.pop("hydra"), resolve=True)
        sweeper = stated.get("sweeper") if isinstance(stated, dict) and set(stated) == {"sweeper"} else None
        params = sweeper.get("params", {}) if isinstance(sweeper, dict) else None
        if not isinstance(sweeper, dict) or not isinstance(params, dict):
            raise UserError(
                f"{file}: of hydra a recipe says keys of hydra.sweeper only, and its params are keys and values",
                'hydra: {sweeper: {params: {optim.lr: "5e-7,1e-6"}}}',
            )
        for key in [key for key in params if str(key).partition(".")[0] in replaced]:
            self.notes.append(f"{str(key).partition('.')[0]} is taken whole: {file} is not swept over {key}")
            del params[key]
        self.sweeper = {**self.sweeper, **sweeper, "params": {**self.sweeper.get("params", {}), **params}}

    def apply(self, override: Set | Delete) -> None:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            if isinstance(override, Set):
                # `train={batch_size: 8}` adds to a group; below that a mapping is given whole (data.eval={}).
                is_group = "." not in override.key
                OmegaConf.update(self.config, override.key, override.value, merge=is_group, force_add=True)
            else:
                parent, _, last = override.key.rpartition(".")
                node = OmegaConf.select(self.config, parent)
                if node is None or last not in node:
                    known = [f"{parent}.{name}" for name in node] if node else []
                    raise UserError(f"~{override.key}: there is nothing to delete", did_you_mean(override.key, known))
                del node[last]
        except (OmegaConfBaseException, TypeError, ValueError, IndexError) as error:
            raise UserError(f"{override.text}: {_first_line(error)}") from None
        value = override.value if isinstance(override, Set) else None
        self.origins += [(key, COMMAND_LINE) for key, _ in leaves({override.key: value})]

    def resolved(self) -> dict[str, Any]:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            plain = OmegaConf.to_container(self.config, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            key = str(error.full_key or "")
            raise UserError(f"{key}: {_first_line(error)} ({origin_of(key, self.origins)})") from None
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}


@contextmanager
def without_environment() -> Iterator[None]:
    """Meanwhile `${oc.env:NAME}` is refused: a run is what its recipes and its command line say, on every machine.

    What a variable holds would be written into run.yaml and the manifest, secrets too, and another machine would make
    another run of the same recipe.
    """
    from omegaconf import OmegaConf
    from omegaconf.resolvers import oc

    def refuse(name: str, *_default: object) -> str:
        raise ValueError(f"a run does not read the environment, say {name} by key=value")

    OmegaConf.register_new_resolver("oc.env", refuse, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def merge_files(chosen: dict[str, str | None], folders: list[RecipeFolder], tree: Tree = TRAIN_TREE) -> Merged:
    """Every YAML file of the run, merged in Hydra's order. folders: of the tree."""
    import yaml
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_repository import CachingConfigRepository
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    try:
        loader = ConfigLoaderImpl(_hydra_search_path(folders))
        repository = CachingConfigRepository(loader.repository)
        recipe = {k: v for k, v in chosen.items() if k == "recipe"}
        of_recipe, _ = _defaults(repository, recipe, tree)
        final, files = _defaults(repository, chosen, tree)
        # Only what differs from the recipe's own choice is taken whole: `loss=orpo` on an ORPO recipe changes nothing.
        replaced = {g for g in chosen if recipe.get("recipe") and g != "recipe" and final[g] != of_recipe[g]}
        merged = Merged(final)
        for default in files:
            file = f"{default.config_path}.yaml"
            if ".." in file.split("/"):
                raise UserError(f"{file}: a defaults list may not lead out of the recipes", "put the file into them")
            config = loader._load_single_config(default, repository).config
            if not isinstance(config, DictConfig):
                raise UserError(f"{file}: expected keys and values")
            folder = _folder_of(file, folders, merged.notes)
            if file.startswith("recipe/"):
                _refuse_unpackaged(config, file)
                _refuse_words(config, file, tree)
                if tree == TRAIN_TREE:
                    merged.take_sweep(config, file, replaced)
                _leave_out(config, replaced, final, file, merged.notes)
            merged.merge(config, file if folder.is_packaged else f"{folder.shown}/{file}")
    except MissingConfigException as error:
        raise _missing(error, folders, tree) from None
    except yaml.YAMLError as error:
        raise UserError(f"a recipe file is not YAML: {' '.join(str(error).split())}") from None
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        raise UserError(f"the recipes do not fit together: {_first_line(error)}") from None
    return merged


def _hydra_search_path(folders: list[RecipeFolder]) -> Any:
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
    from hydra.core.plugins import Plugins

    Plugins.instance()  # registers the readers of file:// and structured://
    path = ConfigSearchPathImpl()
    for folder in folders:
        path.append(folder.shown, folder.path.as_uri())
    path.append("schema", "structured://")  # Hydra expects it last
    return path


def _defaults(
    repository: CachingConfigRepository, chosen: dict[str, str | None], tree: Tree
) -> tuple[dict[str, str | None], list[Any]]:
    """Each group's final choice, and the files in the order in which they are merged."""
    from hydra._internal.defaults_list import create_defaults_list
    from hydra.core.override_parser.overrides_parser import OverridesParser

    lines = [f"{group}={'null' if name is None else name}" for group, name in chosen.items()]
    result = create_defaults_list(
        repo=repository,
        config_name=tree.main,
        overrides_list=OverridesParser.create().parse_overrides(lines),
        prepend_hydra=False,
        skip_missing=False,
    )
    known = dict(result.overrides.known_choices)
    return {group: known.get(group) for group in tree.groups}, result.defaults


def _folder_of(file: str, folders: list[RecipeFolder], notes: list[str]) -> RecipeFolder:
    """The folder a file comes from; a note where it hides a packaged file."""
    holding = [f for f in folders if (f.path / file).is_file()]
    if len(holding) > 1 and holding[-1].is_packaged:
        note = f"{file} is read from {holding[0].shown} and hides the one that comes with prefopt"
        if note not in notes:
            notes.append(note)
    return holding[0]


def _refuse_unpackaged(config: DictConfig, file: str) -> None:
    if "recipe" in config:
        raise UserError(f"{file}: its values land under the key recipe", "begin the file with # @package _global_")


def _refuse_words(config: DictConfig, file: str, tree: Tree) -> None:
    """Refuse `loss: dpo`, before it takes the place of all that the group's file says."""
    for group in tree.groups:
        value = config._get_node(group)
        word = None if value is None else value._value()
        if isinstance(word, str) and not word.startswith(("${", "???")):
            raise not_chosen_like_that(file, group, word)


def _leave_out(
    config: DictConfig, replaced: set[str], final: dict[str, str | None], file: str, notes: list[str]
) -> None:
    """Drop what a recipe says about groups for which the command line chose another file."""
    for group in sorted(replaced & {str(key) for key in config}):
        names = ", ".join(f"{group}.{key}" for key in config[group])
        notes.append(
            f"{group}={final[group]} is taken whole: {names} of {file} {'are' if ',' in names else 'is'} left out"
        )
        del config[group]


def check_choices(chosen: dict[str, str | None], folders: list[RecipeFolder], tree: Tree = TRAIN_TREE) -> None:
    """Refuse a choice that no folder has. folders: of the tree.

    Raises: UserError with where the file lies instead, or the nearest names.
    """
    for group, name in chosen.items():
        known = choices(group, folders)
        if name is None and group != "recipe":
            raise UserError(f"{group}=null: one must be chosen", did_you_mean("", known))
        if name is not None and name not in known:
            raise no_such_choice(group, name, folders, tree)


def set_by(key: str, origins: list[tuple[str, str]]) -> str:
    """Who set the value of a key last, or a part of it; "default" where only the schema did."""
    return next((origin for k, origin in reversed(origins) if k == key or k.startswith(key + ".")), "default")


def origin_of(key: str, origins: list[tuple[str, str]]) -> str:
    """Who set a key that the schema refuses: as `set_by`, else whoever set the list or mapping it stands in."""
    while (origin := set_by(key, origins)) == "default" and "." in key:
        key = key.rpartition(".")[0]
    return origin


def _missing(error: Any, folders: list[RecipeFolder], tree: Tree) -> UserError:
    """A recipe's defaults list names a file that is not there."""
    group, _, name = str(error.missing_cfg_file or "").rpartition("/")
    if group in tree.groups:
        return UserError(
            f"a defaults list asks for {group}/{name}.yaml, which is not there",
            did_you_mean(name, choices(group, folders)),
        )
    return UserError(f"the recipes do not fit together: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    """The first line of a library's message; where the message is empty, of what caused it."""
    while not str(error).strip() and error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
