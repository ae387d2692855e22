"""Numbers that models gave to chunks of rows, kept so that a killed command does not ask for them twice.

scores/STAGE/SET/00000.npz    the columns of the first `chunk_size` rows, one after the other
scores/SET.json               what the rows were

A chunk depends on the settings and its rows alone: whoever makes it, makes the same, and twice does no harm.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import numpy as np

from prefopt import durable
from prefopt.disk import unwritten, write_whole
from prefopt.errors import RunError, UserError
from prefopt.run_folder import read_json


class KeptScores:
    """The chunks of one set. chunk_size: rows of each but the last."""

    def __init__(self, folder: Path, name: str, num_rows: int, chunk_size: int) -> None:
        self._root = folder / "scores"
        self._name = quote(name, safe="")
        self._num_rows, self._chunk_size = num_rows, chunk_size

    def claim(self, fingerprint: str) -> None:
        """Note which rows these are. Raises: UserError where chunks of other rows are there."""
        durable.make_folder(self._root)
        note, wanted = self._root / f"{self._name}.json", {"rows": self._num_rows, "fingerprint": fingerprint}
        found = read_json(note, "out")
        if found is None:
            write_whole(note, json.dumps(wanted), "out")
        elif found != wanted:
            raise UserError(
                f"{self._root} was begun with other rows of {self._name}; it is left as it is",
                "restore the data, or another place: out=FOLDER",
            )

    @property
    def num_chunks(self) -> int:
        """Chunks of all rows."""
        return -(-self._num_rows // self._chunk_size)

    def places(self, chunk: int) -> np.ndarray:
        """The rows of a chunk."""
        return np.arange(chunk * self._chunk_size, min((chunk + 1) * self._chunk_size, self._num_rows))

    def has(self, stage: str, chunk: int) -> bool:
        """Whether a chunk is there."""
        return self._file(stage, chunk).exists()

    def write(self, stage: str, chunk: int, columns: Mapping[str, np.ndarray]) -> None:
        """Keep the columns of a chunk. Raises: RunError where the disk does not take them."""
        file = self._file(stage, chunk)
        draft = file.with_name(f".{file.name}.tmp-{os.getpid()}")
        try:
            durable.make_folder(file.parent)
            with open(draft, "wb") as content:
                np.savez(content, **columns)  # type: ignore[arg-type]  # its own word allow_pickle is no column
                content.flush()
                os.fsync(content.fileno())
            durable.publish(draft, file)
        except OSError as error:
            raise unwritten(file, error, "out") from None
        finally:
            draft.unlink(missing_ok=True)

    def columns(self, stage: str) -> dict[str, np.ndarray]:
        """The columns of all rows. Raises: RunError where a file is damaged."""
        chunks = [self._read(self._file(stage, chunk)) for chunk in range(self.num_chunks)]
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def _read(self, file: Path) -> dict[str, np.ndarray]:
        try:
            with np.load(file, allow_pickle=False) as content:
                return {name: content[name] for name in content.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise RunError(
                f"{file} cannot be read: {error}", "delete that file: the same command makes it again"
            ) from None

    def _file(self, stage: str, chunk: int) -> Path:
        return self._root / stage / self._name / f"{chunk:05d}.npz"
