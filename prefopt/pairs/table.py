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
    schema = _schema(rows, texts)
    draft = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with pq.ParquetWriter(draft, schema) as writer:
            for batch in _batches(rows, texts):
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
        durable.sync(draft)
        durable.publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _schema(rows: Path, texts: bool) -> pa.Schema:
    """Columns and types of all rows: a later row may have a column, or a fraction, that the first ones do not have."""
    schema = pa.schema([])
    for batch in _batches(rows, texts):
        columns: dict[str, None] = dict.fromkeys(column for row in batch for column in row)
        found = pa.Table.from_pydict({column: [row.get(column) for row in batch] for column in columns}).schema
        schema = pa.unify_schemas([schema, found], promote_options="permissive")
    return schema


def _batches(rows: Path, texts: bool) -> Iterator[list[dict[str, Any]]]:
    with open(rows, encoding="utf-8", newline="\n") as lines:
        while batch := [_flat(json.loads(line), texts) for line in islice(lines, ROWS_AT_ONCE)]:
            yield batch


def _flat(row: dict[str, Any], texts: bool) -> dict[str, Any]:
    as_text = {"provenance", "prompt"} if texts else {"provenance"}
    return {k: json.dumps(v, ensure_ascii=False) if k in as_text else v for k, v in row.items()}


def _is_mixed(rows: Path) -> bool:
    return len(set(_kinds(rows))) > 1


def _kinds(rows: Path) -> Iterator[bool]:
    with open(rows, encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield isinstance(json.loads(line).get("prompt"), str)
