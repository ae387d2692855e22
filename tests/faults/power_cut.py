"""A power cut before any operation on a folder: what its disk would hold then, as far as anybody may rely on it.

A file system promises nothing of what was not synced. Two disks are as far apart as they get, and a program must come
back from both: on the one that keeps names late, a folder has the names it had when it was last synced; on the one
that keeps names early, every name is there at once. On both a file has the bytes it had when it was last synced, and
none where it never was.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OPERATIONS = ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir")


class Disk:
    """What of the files under `root` is sure to be on the disk. Everything that is there at the start is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}
        self._held: list[int] = []
        for path in [root, *root.rglob("*")]:
            descriptor = os.open(path, os.O_RDONLY)
            self.note_sync(descriptor)
            os.close(descriptor)

    def note_sync(self, descriptor: int) -> None:
        """A file's bytes or a folder's names are on the disk as they are now."""
        self._held.append(os.dup(descriptor))  # so that its number is not given to another file
        status, path = os.fstat(descriptor), f"/proc/self/fd/{descriptor}"
        if stat.S_ISDIR(status.st_mode):
            self._names[status.st_ino] = _names(path)
        else:
            with open(path, "rb") as file:
                self._bytes[status.st_ino] = file.read()

    def after_a_cut(self, there: Path, names_early: bool) -> None:
        """Write into `there` what is left of `root`."""
        self._write(self.root.stat().st_ino, self.root, there, names_early)

    def close(self) -> None:
        """Let go of every file."""
        for descriptor in self._held:
            os.close(descriptor)

    def _write(self, number: int, here: Path | None, there: Path, names_early: bool) -> None:
        there.mkdir()
        if names_early:
            assert here is not None
            names = _names(here)
        else:
            names = self._names.get(number, {})
        for name, (inner, is_folder) in names.items():
            if is_folder:
                self._write(inner, here / name if here and names_early else None, there / name, names_early)
            else:
                (there / name).write_bytes(self._bytes.get(inner, b""))


def _names(folder: Path | str) -> dict[str, tuple[int, bool]]:
    with os.scandir(folder) as entries:
        return {entry.name: (entry.inode(), entry.is_dir()) for entry in entries}


@contextmanager
def power_cuts(root: Path, scratch: Path, check: Callable[[Path, str], None]) -> Iterator[None]:
    """Meanwhile the power is cut before each operation on files that this process makes under `root`.

    check: called with a folder that holds what both disks have left, and with words for the moment; may change it.
    """
    disk = Disk(root)
    originals: dict[str, Any] = {name: getattr(os, name) for name in OPERATIONS}
    busy = False

    def cut(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        busy = True
        for names_early in (False, True):
            there = scratch / "cut"
            disk.after_a_cut(there, names_early)
            check(there, f"names {'early' if names_early else 'late'}, before {name}{arguments}")
            shutil.rmtree(there)
        busy = False

    def watched(name: str) -> Callable[..., Any]:
        def operate(*arguments: Any, **more: Any) -> Any:
            if busy or not _is_under(root, arguments[0], more):
                return originals[name](*arguments, **more)
            cut(name, arguments)
            result = originals[name](*arguments, **more)
            if name == "fsync":
                disk.note_sync(arguments[0])
            return result

        return operate

    for name in OPERATIONS:
        setattr(os, name, watched(name))
    try:
        yield
        cut("the end", ())
    finally:
        for name, original in originals.items():
            setattr(os, name, original)
        disk.close()


def _is_under(root: Path, what: Any, more: dict[str, Any]) -> bool:
    if isinstance(what, int) or more.get("dir_fd") is not None:
        descriptor = what if isinstance(what, int) else more["dir_fd"]
        path = os.readlink(f"/proc/self/fd/{descriptor}")
    else:
        path = os.path.abspath(what)
    return path == str(root) or path.startswith(f"{root}/")
