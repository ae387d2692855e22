"""Reads a peer's file, writes a recipe that composes, and shows what became of every key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from prefopt.config import compose_with_origins
from prefopt.console import PLAIN
from prefopt.disk import write_whole
from prefopt.durable import make_folder
from prefopt.errors import UserError
from prefopt.peers.read import read, recognise
from prefopt.peers.recipe_text import recipe_text
from prefopt.peers.taking import Kind, Line, Options, Taking

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {Kind.OTHER: "yellow", Kind.NONE: "red", Kind.UNKNOWN: "red", Kind.TAKEN: "green"}


def import_file(file: Path, out: Path | None, options: Options, console: Console) -> int:
    """Run the command; 0.

    Raises: UserError for a file that is not understood, a value that has no equivalent, or a recipe that is there.
    """
    name = _name(out.stem if out is not None else file.stem)
    target = out if out is not None else Path("recipes/recipe") / f"{name}.yaml"
    if target.suffix != ".yaml":
        raise UserError(f"out={target}: a recipe's name ends in .yaml", f"out={target}.yaml")
    if target.exists():
        raise UserError(f"{target} is there already", "another name: out=recipes/recipe/NAME.yaml")
    peer, taken = understand(file, options)
    text = recipe_text(taken, peer, str(file))
    check_composes(name, text, file)
    make_folder(target.absolute().parent)
    write_whole(target, text, "out")
    show(console, taken.lines)
    console.print(f"{target}: {peer} -> loss={taken.groups['loss']}; {counts(taken.lines)}", **PLAIN)
    for line in missing(taken):
        console.print(line, **PLAIN)
    console.print(f"look at it: prefopt train recipe={name} --dry-run", **PLAIN)
    return 0


def understand(file: Path, options: Options) -> tuple[str, Taking]:
    """Whose file it is, and the account of it.

    Raises: UserError as `import_file`, naming the file.
    """
    mapping = read(file)
    peer = recognise(mapping, file)
    taken = Taking(mapping, options)
    if options.trainer is not None and peer.name != "TRL":
        raise UserError(f"trainer={options.trainer} has no effect: {file} is a file of {peer.name}", "leave it out")
    try:
        peer.take(taken, file)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: a value is not what {peer.name} takes there: {error}", "mend the file") from None
    except UserError as error:
        here = error.message if str(file) in error.message else f"{file}: {error.message}"
        raise UserError(here, error.hint) from None
    return peer.name, taken


def check_composes(name: str, text: str, file: Path) -> None:
    """Compose the recipe as `prefopt train` would.

    Raises: UserError where a value is one that prefopt refuses.
    """
    with TemporaryDirectory() as folder:
        recipes = Path(folder) / "recipe"
        recipes.mkdir()
        (recipes / f"{name}.yaml").write_text(text, encoding="utf-8")
        try:
            compose_with_origins([f"recipe={name}"], Path(folder))
        except UserError as error:
            said = error.message.replace(folder, "the recipe")
            raise UserError(f"{file}: what comes of it is refused: {said}", error.hint) from None


def missing(taken: Taking) -> list[str]:
    """What a run still needs, one line each."""
    lines = []
    if not taken.settings.get("model.path"):
        lines.append("the file names no model: give model.path=FOLDER or a hub name")
    if not taken.settings.get("data.train"):
        lines.append("the file names no data: give data.train=[{path: FILE}]")
    return lines + taken.needed


def counts(lines: Sequence[Line]) -> str:
    """`12 taken over, 2 other meaning, ...`: every key is in one of them."""
    found = [(kind, len({line.key for line in lines if line.kind is kind})) for kind in Kind]
    return ", ".join(f"{number} {kind.value}" for kind, number in found if number)


def show(console: Console, lines: Sequence[Line]) -> None:
    """What became of the keys, first what changes numbers: one line for each, and what to know below it."""
    from rich.text import Text

    for kind in Kind:
        of = [line for line in lines if line.kind is kind]
        if of:
            console.print(Text(kind.value, style=STYLES.get(kind, "bold")), soft_wrap=True)
        width = max((len(_left(line)) for line in of if len(_left(line)) <= 48), default=0)
        for line in of:
            console.print(f"  {_left(line):<{width}}{f'  -> {line.to}' if line.to else ''}".rstrip(), **PLAIN)
            if line.said:
                console.print(f"      {line.said}", **PLAIN)


def _left(line: Line) -> str:
    return f"{line.key}: {line.value}" if line.value else line.key


def _name(stem: str) -> str:
    """A recipe's name: letters, digits, _ and -."""
    return re.sub(r"[^\w-]+", "_", stem).strip("_-") or "imported"
