"""Where tokenised data and reference columns are kept between runs, and how runs that start at once make them once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefopt.errors import RunError
from prefopt.settings import DataSettings


def cache_folder(settings: DataSettings) -> Path:
    """$PREFOPT_CACHE, else data.cache_dir, else prefopt's folder in the user's cache ($XDG_CACHE_HOME or ~/.cache)."""
    named = os.environ.get("PREFOPT_CACHE") or settings.cache_dir
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "prefopt"


@contextmanager
def alone(cache: Path, name: str, doing: str) -> Iterator[None]:
    """No other process does the same in this cache meanwhile; who comes later waits, and says so.

    name: of what is made. doing: what the other one is doing, for whoever waits. The system frees the lock of a process
    that dies, so that nobody waits for a dead one.

    Raises: RunError where the lock cannot be written.
    """
    from filelock import FileLock, Timeout

    file = cache / "locks" / f"{name}.lock"
    lock = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"prefopt: waiting for another run that is {doing} ({file})", file=sys.stderr, flush=True)
            lock.acquire(poll_interval=0.1)
    except OSError as error:
        raise RunError(
            f"{error.filename or file}: the lock cannot be written ({error.strerror or error})",
            "free some space; or set data.cache_dir to a folder that can be written",
        ) from error
    try:
        yield
    finally:
        lock.release()
