"""Messages of the rooms below in the words of the command that is running: its keys, not those of a training run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

from prefopt.errors import UserError
from prefopt.fill import SettingsError
from prefopt.settings import DataSettings, ModelSettings

_OWN = {"data.chat_template": "chat_template", "data.cache_dir": "PREFOPT_CACHE", "model.dtype": "dtype"}
"""Keys of a training run that `prefopt pairs` and `prefopt eval` have too, by their names there; and the variable of
the environment that stands for one that they have not."""

_KEY = re.compile(
    "|".join(rf"\b{group}\.{f.name}\b" for group, cls in (("data", DataSettings), ("model", ModelSettings))
             for f in fields(cls))
)  # fmt: skip

ALTERNATIVE = "; or "
"""What stands between the things that a hint offers to do; one that sets a key that there is not is left out."""


@contextmanager
def own_words() -> Iterator[None]:
    """Meanwhile a message that names a key of training names what this command has in its place, and its hint offers
    nothing that can be set in training alone. Every process of `prefopt pairs` and `prefopt eval` does its work so."""
    try:
        yield
    except UserError as error:
        _translate(error)
        raise


@contextmanager
def called(key: str) -> Iterator[None]:
    """Meanwhile a message about `model.path` speaks of `key`, and about other keys of training as in `own_words`."""
    try:
        yield
    except UserError as error:
        if error.message.startswith("model.path:"):
            error.message = f"{key}:{error.message.removeprefix('model.path:')}"
        _translate(error)
        raise


@contextmanager
def of_stage(where: str) -> Iterator[None]:
    """Meanwhile a stage that refuses one of its own settings, as it does not know under which key it stands, names the
    key whole. where: of the stage, such as "score" or "margins.0"."""
    try:
        yield
    except SettingsError as error:
        raise UserError(f"{where}.{error.message}", error.hint, error.exit_code) from error


def _translate(error: UserError) -> None:
    error.message = _KEY.sub(lambda found: _OWN.get(found[0], found[0]), error.message)
    offered = error.hint.split(ALTERNATIVE)
    kept = [one for one in offered if all(key in _OWN for key in _KEY.findall(one))]
    error.hint = ALTERNATIVE.join(_KEY.sub(lambda found: _OWN[found[0]], one) for one in kept)
