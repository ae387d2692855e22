"""A kept digest is used only for as long as nobody touched the file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from prefopt.data.digests import known_digest
from prefopt.data.files import digest_of

SETTLED = 2.1  # seconds after which a file's digest is kept


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that was written some time ago."""
    made = tmp_path / "rows"
    made.write_bytes(b"one" * 1000)
    time.sleep(SETTLED)
    return made


def forge(notes: Path) -> None:
    """Make the kept digest one that no file has, so that using it shows."""
    (note,) = notes.iterdir()
    note.write_text(json.dumps({**json.loads(note.read_text()), "sha256": "f" * 64}))


def test_a_settled_file_is_read_once(file: Path, notes: Path) -> None:
    assert known_digest(file, notes) == digest_of(file)
    forge(notes)
    assert known_digest(file, notes) == "f" * 64


def test_a_file_just_written_is_read_every_time(tmp_path: Path, notes: Path) -> None:
    file = tmp_path / "rows"
    file.write_bytes(b"new")
    assert known_digest(file, notes) == digest_of(file)
    assert not notes.exists()


@pytest.mark.parametrize("how", ["changed with its time set back", "replaced", "grown"])
def test_a_touched_file_is_read_again(file: Path, notes: Path, how: str) -> None:
    known_digest(file, notes)
    forge(notes)
    before = file.stat()
    if how == "replaced":
        other = file.with_name("other")
        other.write_bytes(b"two" * 1000)
        other.replace(file)
    elif how == "grown":
        with open(file, "ab") as out:
            out.write(b"!")
    else:
        with open(file, "r+b") as out:
            out.write(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert known_digest(file, notes) == digest_of(file)


def test_a_torn_note_and_a_cache_that_may_not_be_written_only_cost_time(file: Path, notes: Path) -> None:
    known_digest(file, notes)
    (note,) = notes.iterdir()
    note.write_text('{"stamp": [')
    assert known_digest(file, notes) == digest_of(file)
    blocked = file.with_name("blocked")
    blocked.write_text("a file where the folder should be")
    assert known_digest(file, blocked) == digest_of(file)
