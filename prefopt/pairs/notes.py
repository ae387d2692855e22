"""Answers that cost money, on the disk before anybody uses them: a killed run asks for nothing twice.

A folder of JSONL files, one for each process and opening, each line {"key": ..., "value": ...}. A line is appended and
synced at once; one that a power cut or a kill tore is passed over.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from prefopt.disk import disk_error
from prefopt.durable import make_folder, sync
from prefopt.errors import RunError


class Notes:
    """What was kept by key. Values stay on the disk; memory holds the place of each (some 200 bytes). Thread-safe."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        """folder: made if need be; every process may write here at once. say: prints a line for the user.

        Raises: RunError where it cannot be read or made.
        """
        self._folder = folder
        self._lock = threading.Lock()
        self._places: dict[str, tuple[Path, int]] = {}
        self._mine: tuple[Path, int] | None = None
        try:
            make_folder(folder)
            for file in sorted(folder.glob("answers-*.jsonl")):
                self._read(file, say)
        except OSError as error:
            raise _failed(folder, error) from None

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str) -> Any:
        """What was kept under a key; None where nothing was. Raises: RunError where the file has gone."""
        place = self._places.get(key)
        if place is None:
            return None
        file, start = place
        try:
            with open(file, "rb") as lines:
                lines.seek(start)
                return json.loads(lines.readline())["value"]
        except OSError as error:
            raise _failed(file, error) from None

    def keep(self, key: str, value: Any) -> None:
        """Put a value, as JSON, onto the disk. Raises: RunError where that cannot be done."""
        line = json.dumps({"key": key, "value": value}).encode() + b"\n"
        with self._lock:
            file, descriptor = self._mine or self._open()
            try:
                start = os.lseek(descriptor, 0, os.SEEK_END)
                while line:
                    line = line[os.write(descriptor, line) :]
                os.fsync(descriptor)
            except OSError as error:
                raise _failed(file, error) from None
            self._places[key] = file, start

    def _open(self) -> tuple[Path, int]:
        """A new file: one that another process is writing, or that ends in a torn line, is never appended to."""
        for number in count():
            file = self._folder / f"answers-{socket.gethostname()}-{os.getpid()}-{number}.jsonl"
            try:
                descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                sync(self._folder)
            except FileExistsError:
                continue
            except OSError as error:
                raise _failed(file, error) from None
            self._mine = file, descriptor
            return self._mine
        raise AssertionError

    def _read(self, file: Path, say: Callable[[str], None]) -> None:
        start = torn = 0
        with open(file, "rb") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                    record["value"]
                    self._places[record["key"]] = file, start
                except (ValueError, TypeError, KeyError):
                    torn += line.endswith(b"\n")  # the last line of a killed process has no end, and is no surprise
                start += len(line)
        if torn:
            say(f"{file}: {torn} lines cannot be read; what they held is asked again")


def _failed(path: Path, error: OSError) -> RunError:
    return RunError(
        f"{path}: answers cannot be kept or read there: {disk_error(error)[0] or error}",
        "see to that disk and give the same command again: what was kept is not asked again",
    )
