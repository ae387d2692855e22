"""sha256 of files, computed once for as long as the file system shows that a file was not touched."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from prefopt.data.files import digest_of

_SETTLED_NS = 2 * 10**9
"""A file touched within the last two seconds may be touched again without another time: its digest is not kept."""


def known_digest(path: Path, notes: Path) -> str:
    """sha256 of a file's bytes, as hexadecimal digits. notes: the folder where digests are kept between runs.

    A kept digest counts only with the same inode, size, time of writing and time of change. The last cannot be set
    by a program: whatever writes to a file, or puts another in its place, is noticed.

    Raises: RunError where the file cannot be read.
    """
    resolved = path.absolute()
    note = notes / f"{hashlib.sha256(os.fsencode(resolved)).hexdigest()[:32]}.json"
    before = _stamp(path)
    with suppress(OSError, ValueError, KeyError, TypeError):  # no note, or none that can be read: it is computed
        kept = json.loads(note.read_text(encoding="utf-8"))
        if before is not None and kept["stamp"] == before and len(kept["sha256"]) == 64:
            return str(kept["sha256"])
    digest = digest_of(path)
    if before is not None and before == _stamp(path) and before[-1] < time.time_ns() - _SETTLED_NS:
        with suppress(OSError):  # a cache that may not be written costs time and nothing else
            _write(note, {"path": str(resolved), "stamp": before, "sha256": digest})
    return digest


def _stamp(path: Path) -> list[int] | None:
    """What changes when a file does; None where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _write(note: Path, content: dict[str, object]) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    temporary = note.with_name(f".{note.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(note)
