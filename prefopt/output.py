"""Where a command's words go: `--quiet` keeps them back, `--json` leaves stdout to one object.

The file descriptor itself is turned, so that children, ranks and libraries in C follow. Complaints go to stderr anyway.
Standard library only.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def turned(quiet: bool, as_json: bool) -> Iterator[None]:
    """Meanwhile stdout is dropped (`quiet`), else stderr (`as_json`), else as it was."""
    if not quiet and not as_json:
        yield
        return
    sys.stdout.flush()
    before, saved = sys.stdout, os.dup(1)
    target = os.open(os.devnull, os.O_WRONLY) if quiet else os.dup(2)
    os.dup2(target, 1)
    with os.fdopen(target, "w", encoding="utf-8", errors="backslashreplace") as stream:
        sys.stdout = stream if quiet else sys.stderr  # Python's own words: stderr's stream masks secrets
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(saved, 1)
            os.close(saved)
            sys.stdout = before


def print_object(value: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own."""
    print(json.dumps(value, ensure_ascii=False), flush=True)
