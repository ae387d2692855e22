"""Which rows a set holds, whatever tokenizer, template and method they were encoded for: one digest of their words.

It tells whether two runs measured on the same rows. The set's `fingerprint` cannot: it also changes with the name of
the file, with rows of it that the set does not hold, and with what the method asks of the data.
"""

from __future__ import annotations

import hashlib

import pyarrow as pa

from prefopt.data.encoded_set import EncodedSet

_AT_ONCE = 1000
"""Rows whose texts are in memory together."""


def content_digest(rows: EncodedSet) -> str:
    """The sha256 of the sorted sha256s of every row's prompt and best response; hexadecimal.

    Neither the order of rows nor their other responses count: a method that learns from the best one alone encodes no
    others.
    """
    found: list[bytes] = []
    for part in rows.parts:
        hashes, texts = part.column("prompt_hash"), part.artefact.rows.data.column("chosen_text")
        for start in range(0, len(part.places), _AT_ONCE):
            chosen = texts.take(pa.array(part.places[start : start + _AT_ONCE])).to_pylist()
            for prompt, text in zip(hashes[start : start + _AT_ONCE], chosen, strict=True):
                words = b"" if text is None else text.encode("utf-8", "surrogatepass")
                found.append(hashlib.sha256(prompt.astype("<u8").tobytes() + words).digest())
    return hashlib.sha256(b"".join(sorted(found))).hexdigest()
