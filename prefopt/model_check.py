"""Is a local model folder whole? Answered from file names, sizes and headers, before anything heavy is imported."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from prefopt.errors import UserError
from prefopt.model.files import TOKENIZERS, model_folder

_LONGEST_HEADER = 100_000_000
"""Bytes: what the safetensors library itself reads at most."""


def check_model(key: str, path: str) -> None:
    """Refuse a local model folder that lacks config.json or weights, or holds a damaged safetensors file.

    key: the setting that names it, for messages. A hub name is left to the loader.

    Raises: UserError naming the folder or the file.
    """
    folder = local_folder(key, path)
    if folder is None:
        return
    try:
        model_folder(str(folder))
    except UserError as error:
        raise UserError(error.message.replace("model.path", key, 1), error.hint) from None
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        _check_index(key, index)
    for file in sorted(folder.glob("*.safetensors")):
        check_safetensors(key, file)


def check_tokenizer(key: str, path: str) -> None:
    """Refuse a local folder that holds no tokenizer.

    Raises: UserError naming the folder.
    """
    folder = local_folder(key, path)
    if folder is not None and not any((folder / name).is_file() for name in TOKENIZERS):
        raise UserError(
            f"{key}: {path} holds no tokenizer (tokenizer.json)", "copy it there, or set model.tokenizer to another"
        )


def local_folder(key: str, path: str) -> Path | None:
    """The folder that `path` means on this machine; None where it can only be a hub name.

    Raises: UserError for what looks like a path and is no folder.
    """
    if path.startswith("demo://"):
        return None
    try:
        folder = Path(path).expanduser()
        if folder.is_dir():
            return folder
        is_file = folder.is_file()
    except (OSError, RuntimeError) as error:  # a name longer than the system takes; the home of a user there is not
        raise UserError(f"{key}: {path[:200]} cannot be looked up ({_said(error)})", "check the path") from None
    if is_file:
        raise UserError(f"{key}: {path} is a file", "give the folder that holds config.json and the weights")
    # "owner/name" or "name" may be on the hub; anything else can only be a path.
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise UserError(f"{key}: there is no folder {path}", f"paths are relative to {Path.cwd()}")
    return None


def check_safetensors(key: str, file: Path) -> None:
    """Refuse a safetensors file whose size is not the one that its header tells, or whose header cannot be read.

    Layout: 8 bytes little-endian header length, JSON header, tensors; `data_offsets` count from the header's end.

    Raises: UserError naming the file.
    """
    size = file.stat().st_size
    with open(file, "rb") as content:
        start = content.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        header = content.read(length) if 0 < length <= min(size - 8, _LONGEST_HEADER) else b""
    try:
        tensors = json.loads(header)
        ends = [int(entry["data_offsets"][1]) for name, entry in tensors.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError):
        said = f"it tells of a header of {length} bytes; it has {size} bytes"
        raise _damaged(key, file, f"its header cannot be read: {said}") from None
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise _damaged(key, file, f"it has {size} bytes, its header tells of {expected}")


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _check_index(key: str, index: Path) -> None:
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError):
        raise _damaged(key, index, "it is not an index of shards") from None
    missing = sorted(name for name in shards if not (index.parent / name).is_file())
    if missing:
        raise UserError(
            f"{key}: {index.parent} lacks {missing[0]} ({len(missing)} of {len(shards)} shards are missing)"
        )


def _damaged(key: str, file: Path, how: str) -> UserError:
    return UserError(f"{key}: {file} is damaged: {how}", "copy or download it again")
