"""Files written whole or not at all, and what a disk says where that fails. Standard library only."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from prefopt.durable import write_text
from prefopt.errors import RunError

FREE_SPACE = "free some space and give the same command again: it goes on from what is saved"
GO_ON = "once the disk can be written again, the same command goes on from what is saved"

_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TROUBLE = (*_SPACE, errno.EROFS, errno.EIO, errno.ESTALE)
"""What a disk or a file system says that has failed, and not a name that somebody got wrong."""


def write_whole(path: Path, text: str, key: str = "dir") -> None:
    """Write a file so that it is there whole or not at all. key: the setting that names another place.

    Raises: RunError where it cannot be written; an older file of that name is untouched.
    """
    try:
        write_text(path, text)
    except OSError as error:
        raise unwritten(path, error, key) from None


def unwritten(path: Path, error: BaseException, key: str = "dir") -> RunError:
    """The error to raise where `path` could not be written, in the words of the system. key: as of `write_whole`."""
    said, number = disk_error(error)
    first = "free some space" if number in _SPACE else "see to that disk"
    hint = f"{first} and give the same command again, or take another place by {key}=FOLDER"
    return RunError(f"{path} cannot be written: {said or error}", hint)


def disk_error(error: BaseException | None) -> tuple[str, int]:
    """What the system says is wrong with a file, and its errno, whichever library says it; "" and 0 for other errors.

    safetensors and tokenizers raise errors of their own, with "(os error 28)" in them.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno), error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return (os.strerror(int(found[1])), int(found[1])) if found else ("", 0)


def disk_failure(error: BaseException) -> RunError | None:
    """The sentence to say where an error is that of a full or failing disk, whichever library raises it; else None."""
    said, number = disk_error(error)
    if number not in _TROUBLE:
        return None
    file = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    return RunError(f"{file}a file could not be written or read: {said}", what_to_do(number))


def what_to_do(number: int) -> str:
    """The hint for a failure of this errno; 0 where there was none."""
    return FREE_SPACE if number in (0, *_SPACE) else GO_ON


def free_space(folder: Path) -> str:
    """How much the disk of a folder has left, in words."""
    try:
        return f"{size(shutil.disk_usage(folder).free)} free"
    except OSError:
        return f"{folder} is gone"


def size(number: float) -> str:
    """Bytes as people say them."""
    unit, name = (2**30, "GiB") if number >= 2**30 else (2**20, "MiB")
    return f"{number / unit:.1f} {name}"
