"""Numbers of encoded rows - lengths and what the report counts - in one pass that keeps no page of the file."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prefopt.data.schema import SCHEMA

_BATCHES_KEPT = 64
"""After so many batches the pages behind are given back: else the whole file would count as this process's memory."""

_LISTS = ("prompt", "responses", "pairs")
_PLAIN = tuple(
    f.name for f in SCHEMA if f.name == "prompt_hash" or f.name.startswith("num_") or pa.types.is_boolean(f.type)
)


@dataclass(frozen=True)
class Numbers:
    """plain: columns of one number per row. lengths: how many items a list column holds, per row. response_lengths:
    tokens of every response, one row after the other.
    """

    plain: dict[str, np.ndarray]
    lengths: dict[str, np.ndarray]
    response_lengths: np.ndarray


def read_numbers(file: Path) -> Numbers:
    """The numbers of a file of `SCHEMA`: about 100 bytes a row."""
    plain: dict[str, list[np.ndarray]] = {name: [_empty(name)] for name in _PLAIN}
    lengths: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.int32)] for name in _LISTS}
    responses: list[np.ndarray] = [np.zeros(0, np.int32)]
    with open(file, "rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)  # freed with the last buffer that refers to it
    for number, batch in enumerate(pa.ipc.open_stream(pa.py_buffer(mapped))):
        for name, found in plain.items():
            found.append(batch.column(name).to_numpy(zero_copy_only=False).copy())
        for name, counts in lengths.items():
            counts.append(_lengths(batch.column(name)))
        responses.append(_lengths(batch.column("responses").flatten()))
        if number % _BATCHES_KEPT == 0 and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
    return Numbers(_joined(plain), _joined(lengths), np.concatenate(responses))


def _lengths(lists: pa.Array) -> np.ndarray:
    return pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int32)


def _empty(name: str) -> np.ndarray:
    return np.zeros(0, SCHEMA.field(name).type.to_pandas_dtype())


def _joined(parts: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}
