"""Locks in torch's folder of compiled extensions that a killed process has left behind.

DeepSpeed compiles a small extension at its first start; torch looks at it again at every start, under a lock that is a
file (torch 2.13, `torch/utils/file_baton.py`): whoever finds it waits until it is gone, for ever. A start that is
killed in that moment leaves it, and every later start would hang without a word. Whoever holds it keeps it open.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SILENCE = 600.0
"""Seconds after which a lock on a network's disk counts as left behind: its holder may be on another machine."""
_NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "fuse", "9p", "afs", "wekafs")


def extensions_folder() -> Path:
    """Where torch keeps what it compiles: `TORCH_EXTENSIONS_DIR`, else below the user's cache."""
    if said := os.environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(said)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch_extensions"


def free_abandoned() -> list[Path]:
    """Remove the locks that nobody holds any more, and say so on stderr; which they were.

    A lock that a process of this machine has open stays. On a disk that other machines share one stays until it is
    `SILENCE` old.
    """
    freed = []
    folder = extensions_folder()
    for lock in sorted({*folder.glob("*/lock"), *folder.glob("*/*/lock")}):
        with suppress(OSError):
            found = lock.stat()
            is_young = time.time() - found.st_mtime < SILENCE
            if _is_open(lock) or (is_young and _is_shared(lock)):
                continue
            if lock.stat().st_ino == found.st_ino:  # and not one that somebody has made meanwhile
                lock.unlink()
                freed.append(lock)
    for lock in freed:
        print(
            f"prefopt: removed {lock}: a start that was killed left it, and every later one waits for it",
            file=sys.stderr,
        )
    return freed


def _is_open(file: Path) -> bool:
    """Whether a process of this machine has the file open, as far as this user may see."""
    wanted = str(file.resolve())
    return any(opened == wanted for opened in _open_files())


def _open_files() -> Iterator[str]:
    for descriptors in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):
            for descriptor in os.scandir(descriptors):
                with suppress(OSError):
                    yield os.readlink(descriptor.path)


def _is_shared(file: Path) -> bool:
    """Whether the file lies on a disk that other machines may have too: told by the type of its mount."""
    best, kind = -1, ""
    resolved = file.resolve()
    for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        _, place, found, *_ = line.split()
        if resolved.is_relative_to(place) and len(place) >= best:
            best, kind = len(place), found
    return kind.startswith(_NETWORK)
