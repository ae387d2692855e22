"""Secrets: refused among the settings of a run, masked in everything else that prefopt writes.

A secret is what an environment variable holds whose name ends in TOKEN, API_KEY, SECRET, PASSWORD, PASSWD or
CREDENTIALS, in 8 characters or more; and a text whose shape tells it: keys of well-known services, USER:PASSWORD@ in an
address, and NAME=VALUE where the name is that of such a variable. A path that exists is none.

A setting cannot be masked: ranks read run.yaml, and a job of a sweep is composed once more from its words. Standard
library only.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, TextIO, cast

from prefopt.errors import UserError

MASK = "***"

_ENDINGS = ("TOKEN", "API_KEY", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS")
_SHORTEST = 8
_NAMES = "|".join(_ENDINGS)
_SHAPES = {
    "a user and a password in an address": r"(?<=://)[^/\s:@'\"]+:[^/\s@'\"]+(?=@)",
    "a token of the Hugging Face hub": r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{20,}",
    "an API key (sk-...)": (
        r"(?<![A-Za-z0-9])sk-(?:[a-z0-9]{1,12}-){0,3}(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_]{20,}[A-Za-z0-9_-]*"
    ),
    "a token of GitHub": r"(?<![A-Za-z0-9])(?:gh[oprsu]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,})",
    "an access key of AWS": r"(?<![A-Za-z0-9])AKIA[0-9A-Z]{16}(?![0-9A-Za-z])",
    "an assigned secret": (
        rf"(?<![A-Za-z0-9_])(?:(?:[A-Z0-9_]*_)?(?:{_NAMES})=)['\"]?[A-Za-z0-9][A-Za-z0-9_+/.=~-]{{7,}}"
    ),
}
_HINT = (
    "leave it in the environment, which jobs and ranks inherit; the hub's is kept by `hf auth login`,"
    " that of a server in ~/.netrc"
)


def masked(text: str) -> str:
    """`text` with *** in the place of every secret."""
    return _pattern(_held()).sub(_mask, text)


def masked_values(value: Any) -> Any:
    """The same of every string in nested lists and mappings, keys included; other values are as they were."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {masked_values(key): masked_values(item) for key, item in value.items()}
    return [masked_values(item) for item in value] if isinstance(value, list | tuple) else value


def refuse_secret(key: str, value: Any) -> None:
    """Refuse a setting, or a word of the command line, that holds a secret at any depth.

    key: what messages call it.

    Raises: UserError that says which kind of secret, and not the secret.
    """
    if isinstance(value, Mapping):
        for name, item in value.items():
            refuse_secret(key, [str(name), item])
    elif isinstance(value, list | tuple):
        for item in value:
            refuse_secret(key, item)
    elif isinstance(value, str) and (kind := _kind(value)):
        raise UserError(f"{masked(key)} holds {kind}, and a run writes its settings into files", _HINT)


class MaskedStream:
    """A text stream that masks what is written through it, piece by piece; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text` without its secrets; the number of characters taken."""
        self._stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """The same of several pieces."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def mask_streams() -> None:
    """From here on what Python writes to stdout and stderr in this process is masked."""
    sys.stdout, sys.stderr = (cast(TextIO, MaskedStream(stream)) for stream in (sys.stdout, sys.stderr))


def _held() -> tuple[tuple[str, str], ...]:
    """(value, name) of the environment's secrets, the longest first: one may be the beginning of another."""
    found = {
        value: name
        for name, value in os.environ.items()
        if name.upper().endswith(_ENDINGS) and len(value) >= _SHORTEST and not _is_path(value)
    }
    return tuple(sorted(found.items(), key=lambda item: (-len(item[0]), item)))


def _is_path(value: str) -> bool:
    return os.path.isabs(value) and os.path.exists(value)


@lru_cache(maxsize=8)
def _pattern(held: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    return re.compile("|".join([*(re.escape(value) for value, _ in held), *_SHAPES.values()]))


def _mask(found: re.Match[str]) -> str:
    """An assignment keeps its name."""
    name, sign, _ = found[0].partition("=")
    return f"{name}={MASK}" if sign and re.fullmatch(rf"(?:[A-Z0-9_]*_)?(?:{_NAMES})", name) else MASK


def _kind(text: str) -> str:
    """What kind of secret a text holds, in words; empty where it holds none."""
    for value, name in _held():
        if value in text:
            return f"what the environment variable {name} holds"
    return next((kind for kind, shape in _SHAPES.items() if re.search(shape, text)), "")
