"""Files that outlive a power cut: synced before they get their name, and the folder that names them synced after.

A rename alone is whole or not at all while the machine stays up. When the power goes, a file system may have kept the
name and not the bytes, or the bytes and not the name; only what was synced is sure. Standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Put a file's bytes, or a folder's names, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """All files in a folder, then the folders that name them, from the inside out."""
    inside = sorted(folder.rglob("*"), reverse=True)
    for path in inside:
        if path.is_file():
            sync(path)
    for path in inside:
        if path.is_dir():
            sync(path)
    sync(folder)


def make_folder(folder: Path) -> None:
    """A folder and those above it that are missing, each named on the disk by the one above it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


def publish(draft: Path, path: Path) -> None:
    """Give a synced file, or a synced folder that takes no other's place, its name for good."""
    draft.replace(path)
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """A text file that is there whole or not at all; an older one of that name stays until then.

    Raises: OSError where it cannot be written; nothing is left behind.
    """
    draft = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def clear_drafts(folder: Path, below: bool = False) -> None:
    """Take away what a killed process had begun to write here by `write_text`. below: and in the folders within, of
    which no other process may be writing any."""
    for draft in folder.rglob(".*.tmp-*") if below else folder.glob(".*.tmp-*"):
        draft.unlink(missing_ok=True)
