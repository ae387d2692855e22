"""Where recipes lie and what they are called: folders and file names only, so that `--help` is quick.

A folder is a group (left of "="), a file in it a choice (right of it). Folders are looked through in order and the
first file of a name wins: `--config-dir`, `./recipes` of the working directory, then the recipes that prefopt brings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefopt.errors import UserError

GROUPS = ("recipe", "model", "data", "loss", "optim", "deepspeed", "fsdp", "tracker")
"""Every group of a run, in the order in which help lists them."""


@dataclass(frozen=True)
class Tree:
    """The recipes of one command. main: the file that is merged first. root: their folder among the recipes."""

    main: str
    root: str
    groups: tuple[str, ...]


TRAIN_TREE = Tree("train", "", GROUPS)
ROUNDS_TREE = Tree("rounds", "rounds", ("recipe",))
PAIRS_TREE = Tree("pairs", "pairs", ("recipe", "generate", "score", "select"))
EVAL_TREE = Tree("eval", "eval", ("measure",))

START_GROUPS = ("hydra/launcher", "hydra/sweeper")
"""Groups that say how runs are started and what chooses their values: no part of a run (`prefopt/sweeps/groups.py`)."""


@dataclass(frozen=True)
class RecipeFolder:
    """One folder that is looked through. shown: how messages name it."""

    path: Path
    shown: str
    is_packaged: bool = False


def packaged() -> Path:
    """The recipes that prefopt brings: inside the package in a wheel, beside it in the repository."""
    package = Path(__file__).resolve().parent
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def search_path(config_dir: Path | None = None, tree: Tree = TRAIN_TREE) -> list[RecipeFolder]:
    """The folders that hold recipes of a tree, first wins.

    Raises: UserError where `config_dir` is no folder.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise UserError(f"--config-dir {config_dir}: there is no such folder")
    ours = packaged() / tree.root
    given = [] if config_dir is None else [(config_dir / tree.root, str(config_dir / tree.root))]
    local = Path("recipes") / tree.root
    found = [(path, shown) for path, shown in (*given, (local, f"./{local}")) if path.is_dir()]
    # In prefopt's own repository ./recipes is the packaged folder: it is listed once, as the packaged one.
    folders = [RecipeFolder(path.resolve(), shown) for path, shown in found if path.resolve() != ours.resolve()]
    return [*folders, RecipeFolder(ours, "prefopt", is_packaged=True)]


def choices(group: str, folders: list[RecipeFolder]) -> dict[str, Path]:
    """Name to file of everything that may stand right of `group=`, sorted; the first folder wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        root = folder.path / group
        for file in root.rglob("*.yaml"):
            found.setdefault(file.relative_to(root).with_suffix("").as_posix(), file)
    return dict(sorted(found.items()))


def title(file: Path) -> str:
    """The first comment line of a YAML file that is not Hydra's `# @package` line; empty where there is none."""
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text and not text.startswith("#"):
            return ""
        if text.startswith("#") and not text.startswith("# @"):
            return text.lstrip("# ").rstrip()
    return ""
