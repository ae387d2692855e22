"""Messages of the rooms below in the words of the command that is running: its keys, not those of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefopt.errors import UserError
from prefopt.fill import SettingsError


@contextmanager
def called(key: str) -> Iterator[None]:
    """Meanwhile a message about `model.path` speaks of `key`, and one about `data.chat_template` of `chat_template`."""
    try:
        yield
    except UserError as error:
        for theirs, ours in (("model.path:", f"{key}:"), ("data.chat_template:", "chat_template:")):
            if error.message.startswith(theirs):
                error.message = ours + error.message.removeprefix(theirs)
        raise


@contextmanager
def of_stage(where: str) -> Iterator[None]:
    """Meanwhile a stage that refuses one of its own settings, as it does not know under which key it stands, names the
    key whole. where: of the stage, such as "score" or "margins.0"."""
    try:
        yield
    except SettingsError as error:
        raise UserError(f"{where}.{error.message}", error.hint, error.exit_code) from error
