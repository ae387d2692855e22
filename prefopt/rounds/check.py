"""What the words of steps may not say, found before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prefopt.errors import UserError
from prefopt.rounds.settings import COMMANDS, Loop
from prefopt.rounds.unfold import Command, overrides_of
from prefopt.settings import RunSettings

_STAND_IN = "demo://manners/base"
"""A model that counts as there: for one that a step will have trained by then."""


def check(loop: Loop, commands: Sequence[Command], config_dir: Path | None) -> None:
    """Refuse words that are the loop's, cannot be read, or that their command would refuse at once.

    Of rounds that differ in paths and numbers alone the first is composed; the others are read.

    Raises: UserError that names recipe, step and word or key.
    """
    from prefopt.checks import check as check_run
    from prefopt.config import compose
    from prefopt.pairs_config import compose_pairs

    for command in commands:
        where = f"{loop.shown}: step {command.step.name}"
        for word in command.words:
            _check_word(word, command, where)
        if (command.round or 1) > 1:
            continue
        try:
            if command.step.run == "pairs":
                compose_pairs(overrides_of(command, loop), config_dir)
            else:
                check_run(_with_stand_ins(compose(overrides_of(command, loop), config_dir), command.reads))
        except UserError as error:
            raise UserError(f"{where}: {error.message}", error.hint) from None


def _check_word(word: str, command: Command, where: str) -> None:
    from prefopt.overrides import parse

    if word.startswith("-"):
        raise UserError(f"{where}, word {word!r}: a step takes group=NAME and key=value, no options", "leave it out")
    try:
        key = parse(word).key_or_group
    except UserError as error:
        raise UserError(f"{where}, word {error.message}", error.hint) from None
    owned = COMMANDS[command.step.run].owned
    if key in owned:
        raise UserError(f"{where}, word {word!r}: {key} is not a step's to set: {owned[key]}", "leave it out")
    if key.startswith(("hydra/", "hydra.")):
        raise UserError(f"{where}, word {word!r}: a loop runs its steps here, and waits for each", "leave it out")


def _with_stand_ins(run: RunSettings, made: Sequence[str]) -> RunSettings:
    """The run with a model that is there in the place of each that is not yet."""

    def there(path: str | None) -> str | None:
        return _STAND_IN if path in made else path

    model = run.model
    paths = {key: there(getattr(model, key)) for key in ("path", "tokenizer", "reference")}
    return replace(run, model=replace(model, **paths))  # type: ignore[arg-type]
