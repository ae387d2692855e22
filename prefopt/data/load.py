"""Where rows come from: a file, a folder saved by `datasets`, or the name of a hub data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from prefopt.data.digests import known_digest
from prefopt.data.files import READERS, Reader, reader_of
from prefopt.data.hub import quiet_hub
from prefopt.data.rows import Row
from prefopt.errors import RunError, UserError, did_you_mean
from prefopt.settings import SourceSettings

if TYPE_CHECKING:
    import datasets


class Source(Protocol):
    """Something that rows can be read from, again and again."""

    @property
    def label(self) -> str:
        """Its short name in messages and row ids."""

    def digest(self, notes: Path) -> str:
        """A hash of its content, the same on every machine. notes: where digests of files are kept."""

    def rows(self) -> Iterator[Row]:
        """All rows, in order."""


@dataclass(frozen=True)
class FileSource:
    """One file."""

    label: str
    path: Path
    reader: Reader

    def digest(self, notes: Path) -> str:
        return known_digest(self.path, notes)

    def rows(self) -> Iterator[Row]:
        return self.reader(self.path, self.label)


@dataclass(frozen=True)
class DatasetSource:
    """A data set held by `datasets`."""

    label: str
    dataset: datasets.Dataset

    def digest(self, notes: Path) -> str:
        # The Arrow files are hashed, not the fingerprint of `datasets`, which holds times of this machine's files.
        digest = hashlib.sha256(f"{self.dataset.split} {self.dataset.num_rows}".encode())
        for file in self.dataset.cache_files:
            digest.update(known_digest(Path(file["filename"]), notes).encode())
        return digest.hexdigest()

    def rows(self) -> Iterator[Row]:
        for number, value in enumerate(self.dataset, 1):
            yield Row(self.label, number, value)


def read_rows(source: SourceSettings) -> Iterator[Row]:
    """The rows of a source, each with its file and number; at most `source.limit`.

    Raises: UserError for a missing or broken file or a limit below 1; RunError where a hub data set cannot be had.
    """
    return limited(open_source(source), source.limit)


def limited(source: Source, limit: int | None) -> Iterator[Row]:
    """The first `limit` rows, or all. Raises: UserError for a limit below 1."""
    if limit is not None and limit < 1:
        raise UserError(f"{source.label}: limit must be 1 or more, not {limit}", "leave it out to take every row")
    return islice(source.rows(), limit)


def open_source(source: SourceSettings, label: str | None = None, readers: Mapping[str, Reader] = READERS) -> Source:
    """Finds what `source.path` names, without reading rows.

    label: the name its rows carry; None takes the last part of the path, or a hub name whole. readers: of files, by how
    their names end.

    Raises: as `read_rows`.
    """
    if not source.path:
        raise UserError("a data source has no path", "set path to a file, a saved folder or a hub name")
    try:
        path = Path(source.path).expanduser()
        is_dir, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # a name longer than the system takes; the home of a user there is not
        raise UserError(f"{source.path[:200]}: cannot be looked up ({_brief(error)})", "check the path") from None
    if is_dir:
        return _saved_folder(path, source, label)
    reader = reader_of(path, readers)
    if is_file:
        if reader is None:
            raise UserError(f"{path}: no reader for this kind of file", "known endings: " + ", ".join(readers))
        return FileSource(label or path.name, path, reader)
    if reader is not None or not _may_be_hub_name(source.path):
        raise UserError(f"{path}: no such file", _near(path))
    return _hub(source, label)


def _near(path: Path) -> str:
    """What lies in the folder where the file was looked for."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either (working directory: {Path.cwd()})"
    names = sorted(entry.name for entry in path.parent.iterdir())[:1000]
    hint = did_you_mean(path.name, names)
    return hint if len(names) <= 20 or hint.startswith("did") else f"{path.parent} holds {len(names)} other entries"


def _may_be_hub_name(name: str) -> bool:
    """NAME or OWNER/NAME, where OWNER is no folder here."""
    parts = name.split("/")
    return len(parts) <= 2 and all(parts) and not name.startswith((".", "~")) and not Path(parts[0]).is_dir()


def _saved_folder(path: Path, source: SourceSettings, label: str | None) -> Source:
    import datasets

    if not (path / "state.json").is_file() and not (path / "dataset_dict.json").is_file():
        raise UserError(
            f"{path}: a folder, but not one saved by datasets.save_to_disk", "name one of the files in it instead"
        )
    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: the saved data set does not load ({_brief(error)})") from error
    if isinstance(loaded, datasets.DatasetDict):
        if source.split not in loaded:
            known = did_you_mean(source.split, [str(split) for split in loaded])
            raise UserError(f"{path}: no split {source.split!r}", known)
        loaded = loaded[source.split]
    return DatasetSource(label or path.name, loaded)


def _hub(source: SourceSettings, label: str | None) -> Source:
    import datasets

    _check_no_builder(source.path)
    try:
        with quiet_hub():
            loaded = datasets.load_dataset(source.path, name=source.name, split=source.split)
    except ValueError as error:
        raise UserError(f"{source.path}: {_brief(error)}", "check data.*.split and data.*.name") from error
    except OSError as error:
        raise RunError(
            f"{source.path}: neither a file or folder here nor a data set that the hub gave ({_brief(error)}).",
            "Without network only data sets in the local cache can be used; check the name, or give a file's path.",
        ) from error
    if not isinstance(loaded, datasets.Dataset):
        raise UserError(f"{source.path}: split {source.split!r} is not one table of rows")
    return DatasetSource(label or source.path, loaded)


def _check_no_builder(name: str) -> None:
    """Refuse what `datasets` calls its own readers: it would take whatever files lie in the working directory."""
    from datasets import packaged_modules

    if name in getattr(packaged_modules, "_PACKAGED_DATASETS_MODULES", ()):
        raise UserError(f"{name}: a reader of datasets by that name, and no data set", "give the path of a file")


def _brief(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
