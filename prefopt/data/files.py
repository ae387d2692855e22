"""Readers of single files: JSON Lines, JSON, CSV and Parquet, the first three also gzipped.

A file that is broken as a whole is a `UserError` with file and line; what a row holds is not judged here.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from prefopt.data.rows import Row, as_object, as_object_or_prompt
from prefopt.errors import RunError, UserError

# Of a path, and the name that its rows carry.
Reader = Callable[[Path, str], Iterator[Row]]
# A JSON value and its place to the columns of a row.
AsRow = Callable[[Any, str], dict[str, Any]]
_BOM = b"\xef\xbb\xbf"
# Behind a line that is not JSON: enough for a file of some hundred megabytes, and no minutes for a larger one.
_LINES_LOOKED_AT = 200_000
_LINES_NAMED = 10


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unzipped where its name ends in .gz.

    Raises: UserError for a broken gzip file, RunError where the system refuses to read it.
    """
    try:
        with open(path, "rb") as raw:
            yield cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a whole gzip file ({error})", "copy or download the file again") from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror or error})") from error


def _decode(raw: bytes, place: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _DamagedError(
            f"{place}: not valid UTF-8 (byte 0x{raw[error.start]:02x} at position {error.start})",
            "save the file as UTF-8; a number of UTF-16 or Latin-1 is not guessed",
        ) from None


class _DamagedError(UserError):
    """A text that is not UTF-8, or not JSON."""


_REPAIR = "the line is cut short or damaged: repair or delete it"
_REPAIR_ALL = "the lines are cut short or damaged: repair or delete them"


class _TwiceError(Exception):
    """An object names a key twice: which value is meant cannot be told."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return made


def _parse(source: str, path: Path, line: int | None, what: str, hint: str) -> Any:
    """A JSON text. line: of the file, where the text is one of its lines. what: the text should be."""
    place = str(path) if line is None else f"{path}:{line}"
    try:
        return json.loads(source if line is None else source.rstrip("\r\n"), object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}" if line is None else place
        what = error.msg.removesuffix(" at")  # Python's own words go on with the place
        raise _DamagedError(f"{where}: not valid JSON ({what} at column {error.colno})", hint) from None
    except RecursionError:
        raise UserError(f"{place}: JSON nested too deeply to be {what}") from None
    except _TwiceError as error:
        raise UserError(
            f"{place}: an object has the key {str(error)[:60]!r} twice", "leave one of the two out"
        ) from None
    except ValueError:
        raise UserError(f"{place}: a number of more digits than can be read", "write it as text, or shorter") from None


def read_jsonl(path: Path, label: str, as_row: AsRow = as_object) -> Iterator[Row]:
    """One object a line. Lines end at "\\n" only (U+2028 and U+0085 are text); blank lines are passed over."""
    is_first = True
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            raw = line.removeprefix(_BOM) if number == 1 else line
            if raw.strip():
                place = f"{path}:{number}"
                try:
                    value = _parse(_decode(raw, place), path, number, "a row", _REPAIR)
                except _DamagedError as error:
                    if is_first and raw.lstrip().startswith(b"["):
                        raise _an_array(path) from None
                    raise _with_all_damage(error, file, number) from None
                if is_first and isinstance(value, list):
                    raise _an_array(path)
                is_first = False
                yield Row(label, number, as_row(value, place))


def _an_array(path: Path) -> UserError:
    """The error for a file of one object a line that holds an array instead."""
    other = path.name.replace(".jsonl", ".json")
    return UserError(
        f"{path}: begins like a JSON array, and a .jsonl file has one object a line",
        f"rename it {other}, which may hold an array" if other != path.name else "write one object a line",
    )


def _with_all_damage(error: _DamagedError, rest: IO[bytes], number: int) -> UserError:
    """The error of the first damaged line, `number`, with how many there are and the first of them, as far as it is
    looked: who repairs one should not have to start again to hear of the next."""
    bad, last = [number], number
    for last, line in enumerate(islice(rest, _LINES_LOOKED_AT), number + 1):
        try:
            if line.strip():
                json.loads(line)
        except (ValueError, RecursionError):
            bad.append(last)
    so_far = f" up to line {last}" if last - number == _LINES_LOOKED_AT else ""
    if len(bad) == 1:
        return UserError(f"{error.message}; no other line{so_far} is damaged", error.hint)
    shown = ", ".join(map(str, bad[:_LINES_NAMED])) + (" ..." if len(bad) > _LINES_NAMED else "")
    hint = _REPAIR_ALL if error.hint == _REPAIR else error.hint
    return UserError(f"{error.message}; {len(bad)} lines{so_far or ' in all'} are damaged: {shown}", hint)


def read_json(path: Path, label: str, as_row: AsRow = as_object) -> Iterator[Row]:
    """An array of objects; a file that begins with "{" is read as one object a line."""
    with _opened(path) as file:
        raw = file.read().removeprefix(_BOM)
    if raw.lstrip()[:1] != b"[":
        yield from read_jsonl(path, label, as_row)
        return
    hint = "the file is cut short or damaged: copy or download it again"
    for number, value in enumerate(_parse(_decode(raw, str(path)), path, None, "rows", hint), 1):
        yield Row(label, number, as_row(value, f"{path}: element {number}"))


def read_csv(path: Path, label: str) -> Iterator[Row]:
    """Comma-separated, the first line naming the columns; `number` counts rows after it. Empty fields are null."""
    csv.field_size_limit(sys.maxsize)  # the default of 128 KiB is shorter than a long dialogue
    with _opened(path) as file:
        raw = file.read().removeprefix(_BOM)
    reader = csv.reader(io.StringIO(_decode(raw, str(path)), newline=""), strict=True)
    try:
        columns = next(reader, [])
        if len(set(columns)) != len(columns):
            raise UserError(f"{path}:1: two columns of one name in {', '.join(columns)}")
        number = 0
        for fields in reader:
            if not fields:
                continue
            number += 1
            if len(fields) != len(columns):
                raise UserError(
                    f"{path}:{reader.line_num}: {len(fields)} fields where the first line names {len(columns)}",
                    "a comma or a line break inside a field needs double quotes round the field",
                )
            yield Row(label, number, {c: f or None for c, f in zip(columns, fields)})
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not valid CSV ({error})") from None


def read_parquet(path: Path, label: str) -> Iterator[Row]:
    """Rows of a Parquet file, a few hundred at a time."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=512):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(label, number, value)
    except OSError as error:
        if error.errno is None:  # Arrow's word for damaged content
            raise _damaged(path, number, error) from None
        raise RunError(f"{path}: cannot be read ({_first_line(error)})") from error
    except (pyarrow.ArrowException, ValueError, KeyError, TypeError, OverflowError) as error:
        # The last four: text that is not UTF-8, two columns of one name, times that Python cannot hold.
        raise _damaged(path, number, error) from None


def _damaged(path: Path, rows_read: int, error: BaseException) -> UserError:
    what = f"not a whole Parquet file, or one that cannot be read behind row {rows_read} ({_first_line(error)[:200]})"
    return UserError(f"{path}: {what}", "copy or download it again")


READERS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".jsonl.gz": read_jsonl,
    ".json.gz": read_json,
    ".csv.gz": read_csv,
}


_JSONL_OF_PROMPTS = partial(read_jsonl, as_row=as_object_or_prompt)
_JSON_OF_PROMPTS = partial(read_json, as_row=as_object_or_prompt)
PROMPT_READERS: dict[str, Reader] = READERS | {
    ".jsonl": _JSONL_OF_PROMPTS,
    ".json": _JSON_OF_PROMPTS,
    ".jsonl.gz": _JSONL_OF_PROMPTS,
    ".json.gz": _JSON_OF_PROMPTS,
}
"""Readers of files of which prompts are wanted: there a row of JSON may be a string alone."""


def reader_of(path: Path, readers: Mapping[str, Reader] = READERS) -> Reader | None:
    """The reader that the file's name asks for, or None."""
    name = path.name.lower()
    return next((reader for suffix, reader in readers.items() if name.endswith(suffix)), None)


def digest_of(path: Path) -> str:
    """sha256 of a file's bytes, as hexadecimal digits."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror or error})") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
