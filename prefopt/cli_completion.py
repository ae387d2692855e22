"""The words of `prefopt completion`."""

from __future__ import annotations

from prefopt import cli_help
from prefopt.completion import SHELLS, candidates, script
from prefopt.errors import UserError, did_you_mean


def completion(words: list[str]) -> int:
    """Print a shell's script, or, asked by that script, what may follow: `--line 'prefopt train re'`.

    Raises: UserError for a shell that there is no script for.
    """
    if words and words[0] in ("-h", "--help"):
        print(cli_help.COMPLETION, end="")
        return 0
    if len(words) == 2 and words[0] == "--line":
        for word in candidates(words[1]):
            print(word)
        return 0
    if len(words) != 1:
        raise UserError("completion: say which shell", " or ".join(f"prefopt completion {name}" for name in SHELLS))
    if words[0] not in SHELLS:
        raise UserError(f"completion: there is no script for {words[0]!r}", did_you_mean(words[0], SHELLS))
    print(script(words[0]), end="")
    return 0
