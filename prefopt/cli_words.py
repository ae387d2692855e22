"""The words of a command: options anywhere among the overrides."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from prefopt.errors import UserError, did_you_mean


class Parser(argparse.ArgumentParser):
    """Options anywhere among the overrides; complaints are `UserError`s, in the same voice as all others.

    command: whose words they are; its help describes its options.
    """

    def __init__(self, command: str) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self._command = command
        self.add_argument("-h", "--help", action="store_true")
        self.add_argument("--config-dir", type=Path)
        self.add_argument("overrides", nargs="*")

    def error(self, message: str) -> NoReturn:
        raise UserError(message, f"see prefopt {self._command} --help")

    def read(self, words: list[str]) -> argparse.Namespace:
        """The options and overrides.

        Raises: UserError for an option that there is not.
        """
        options, rest = self.parse_known_intermixed_args(words)
        if rest:
            known = [name for action in self._actions for name in action.option_strings]
            raise UserError(f"there is no option {rest[0]}", did_you_mean(rest[0].split("=")[0], known))
        return options
