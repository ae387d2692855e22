"""The words of a command: options anywhere among the overrides."""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from prefopt.errors import UserError
from prefopt.peer_names import as_an_option


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
            hint = as_an_option(rest[0], self._command) or _nearest(rest[0], known)
            raise UserError(f"there is no option {rest[0]}", hint)
        return options


def _nearest(option: str, known: list[str]) -> str:
    """The nearest option, by its letters without the dashes, which all have: --model is not near --help."""
    bare = {name.lstrip("-"): name for name in known if name.startswith("--")}
    near = get_close_matches(option.lstrip("-").partition("=")[0], bare, n=1)
    return f"did you mean {bare[near[0]]!r}?" if near else "known: " + ", ".join(sorted(bare.values()))
