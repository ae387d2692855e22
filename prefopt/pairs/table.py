"""The rows as Parquet besides: the same columns, with the provenance as JSON text, whose shape differs by row."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prefopt import durable

ROWS_AT_ONCE = 1024


def write_table(rows: Path, path: Path) -> None:
    """Write a JSONL file of rows as Parquet. Plain prompts and conversations in one file are told apart by their type,
    which a Parquet column cannot: then prompts are JSON text there too.
    """
    texts = _is_mixed(rows)
    draft = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    writer = None
    try:
        with open(rows, encoding="utf-8", newline="\n") as lines:
            while batch := [_flat(json.loads(line), texts) for line in islice(lines, ROWS_AT_ONCE)]:
                table = pa.Table.from_pylist(batch, schema=None if writer is None else writer.schema)
                writer = writer or pq.ParquetWriter(draft, table.schema)
                writer.write_table(table)
        if writer is not None:
            writer.close()
            writer = None
            durable.sync(draft)
            durable.publish(draft, path)
    finally:
        if writer is not None:
            writer.close()
        draft.unlink(missing_ok=True)


def _flat(row: dict[str, Any], texts: bool) -> dict[str, Any]:
    as_text = {"provenance", "prompt"} if texts else {"provenance"}
    return {k: json.dumps(v, ensure_ascii=False) if k in as_text else v for k, v in row.items()}


def _is_mixed(rows: Path) -> bool:
    return len(set(_kinds(rows))) > 1


def _kinds(rows: Path) -> Iterator[bool]:
    with open(rows, encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield isinstance(json.loads(line).get("prompt"), str)
