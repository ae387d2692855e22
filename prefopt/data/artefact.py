"""Encoded rows on disk: found again by content, written whole or not at all.

CACHE/encoded/KEY/rows.arrow      the rows (`schema.SCHEMA`), memory-mapped by `datasets`
                  left_out.jsonl  the rows left out
                  manifest.json   what was read, and the sha256 of the two files; written last
CACHE/digests/                    sha256 of files that were not touched since (`digests.py`)
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from prefopt.data.digests import known_digest
from prefopt.data.files import digest_of
from prefopt.data.numbers import Numbers, read_numbers
from prefopt.data.schema import SCHEMA, Chunk
from prefopt.errors import RunError

if TYPE_CHECKING:
    import datasets

# Raise it whenever the same rows and settings would give other ids, columns or accounts.
CODE_VERSION = 6

_ROWS, _LEFT_OUT, _MANIFEST = "rows.arrow", "left_out.jsonl", "manifest.json"


def key_of(parts: dict[str, Any]) -> str:
    """The name of the artefact that these inputs give, on any machine."""
    text = json.dumps({"code_version": CODE_VERSION, **parts}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Artefact:
    """The encoded rows of one source.

    path: its folder, named by its key. facts: how it was read (format, rows read ...). digests: sha256 of its files.
    """

    path: Path
    facts: dict[str, Any]
    digests: dict[str, str]

    @property
    def key(self) -> str:
        return self.path.name

    @cached_property
    def rows(self) -> datasets.Dataset:
        """The kept rows, memory-mapped."""
        import datasets

        return datasets.Dataset.from_file(str(self.path / _ROWS))

    @cached_property
    def numbers(self) -> Numbers:
        """Lengths and counts of the kept rows."""
        return read_numbers(self.path / _ROWS)

    def left_out(self) -> list[dict[str, Any]]:
        """{row, id, reason, detail} of each row that was left out."""
        with open(self.path / _LEFT_OUT, encoding="utf-8", newline="\n") as file:
            return [json.loads(line) for line in file]


def open_artefact(path: Path, digests: dict[str, str] | None = None) -> Artefact:
    """The artefact in a folder, its files compared with the digests it was written with (or with those given).

    Raises: RunError where a file is missing or is not what it was.
    """
    hint = "run it again: it will be encoded anew"
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        written = manifest["digests"]
        notes = notes_folder(path.parent.parent)
        found = {name: known_digest(path / name, notes) for name in written}
        facts = manifest["facts"]
    except (OSError, ValueError, KeyError, RunError) as error:
        raise RunError(f"{path}: the encoded data is missing or incomplete ({error})", hint) from None
    if found != written or (digests is not None and digests != written):
        raise RunError(f"{path}: the encoded data has changed since it was written", hint)
    return Artefact(path, facts, written)


def find_artefact(cache_dir: Path, key: str) -> Artefact | None:
    """A whole artefact of that key, or None; a damaged one is taken away."""
    path = _folder(cache_dir) / key
    if not path.exists():
        return None
    try:
        return open_artefact(path)
    except RunError:
        _discard(path)
        return None


def write_artefact(cache_dir: Path, key: str, facts: dict[str, Any], chunks: Iterable[Chunk]) -> Artefact:
    """Writes chunks beside their final place and renames the folder, so that it is there whole or not at all.

    facts: goes into the manifest, with `read`, `kept` and `dropped` added. The caller holds the key's lock: drafts that
    lie here are dead ones, and go. Where locks do not reach, the first of two writers wins.

    Raises: RunError where the disk is full or may not be written; whatever making the chunks raises.
    """
    folder = _folder(cache_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for dead in folder.glob(f".{key}.*"):
            shutil.rmtree(dead, ignore_errors=True)
        with _temporary(folder, key) as draft:
            kept, dropped = _write_rows(draft, chunks)
            digests = {name: digest_of(draft / name) for name in (_ROWS, _LEFT_OUT)}
            facts = {**facts, "read": kept + dropped, "kept": kept, "dropped": dropped}
            manifest = {"key": key, "code_version": CODE_VERSION, "facts": facts, "digests": digests}
            _write_synced(draft / _MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())
            _publish(draft, folder / key)
    except OSError as error:
        where = error.filename or folder
        raise RunError(
            f"{where}: the encoded data cannot be written ({error.strerror or error})",
            "free some space; or set data.cache_dir to a folder that can be written",
        ) from error
    return open_artefact(folder / key)


def notes_folder(cache_dir: Path) -> Path:
    """Where digests of files are kept."""
    return cache_dir / "digests"


def _folder(cache_dir: Path) -> Path:
    return cache_dir / "encoded"


@contextmanager
def _temporary(folder: Path, key: str) -> Iterator[Path]:
    """A folder beside the final one, which is gone afterwards whatever happens."""
    draft = folder / f".{key}.{uuid.uuid4().hex}"
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_rows(draft: Path, chunks: Iterable[Chunk]) -> tuple[int, int]:
    kept = dropped = 0
    with (
        open(draft / _ROWS, "wb") as rows,
        open(draft / _LEFT_OUT, "w", encoding="utf-8", newline="\n") as left_out,
    ):
        with pa.ipc.new_stream(rows, SCHEMA) as writer:
            for chunk in chunks:
                if chunk.kept.num_rows:
                    writer.write_batch(chunk.kept)
                left_out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in chunk.left_out)
                kept += chunk.kept.num_rows
                dropped += len(chunk.left_out)
        for file in (rows, left_out):
            file.flush()
            os.fsync(file.fileno())
    return kept, dropped


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _publish(draft: Path, path: Path) -> None:
    try:
        draft.rename(path)
    except OSError:
        if not (path / _MANIFEST).is_file():
            raise
        return  # another process encoded the same rows meanwhile: its folder is as good as ours
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _discard(path: Path) -> None:
    """Out of the way by a rename first, so that a reader never meets half of it."""
    aside = path.parent / f".discarded.{uuid.uuid4().hex}"
    try:
        path.rename(aside)
    except FileNotFoundError:
        return  # another process has just done it
    shutil.rmtree(aside, ignore_errors=True)
