"""`token_len` of Arena-Hard's metadata: tokens by the encoding of gpt-4o, where that is at hand.

tiktoken gets the encoding's file from the network. prefopt does not ask for it by itself: a node without a network
would wait. It is used where tiktoken has it in its cache.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from prefopt.evaluate.answer_files import Answer

_ENCODING = "o200k_base"
_ADDRESS = f"https://openaipublic.blob.core.windows.net/encodings/{_ENCODING}.tiktoken"
_DIGEST = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"  # sha256 of that file, as tiktoken has it
_BYTES_PER_TOKEN = 4


def token_lens(answers: Sequence[Answer]) -> tuple[list[int], str]:
    """Of each answer, and a sentence on how they were counted; empty where gpt-4o's encoding counted.

    Without it an answer has the tokens that its own model took; where even these are not known, its UTF-8 bytes divided
    by 4, rounded up: on the 750 answers of o3-mini to Arena-Hard v2.0 nine of ten are between 0.68 and 1.41 times the
    true number.
    """
    if find_spec("tiktoken") is not None and _cached():
        import tiktoken

        encoding = tiktoken.get_encoding(_ENCODING)
        return [len(encoding.encode(answer.response, disallowed_special=())) for answer in answers], ""
    known = all(answer.tokens is not None for answer in answers)
    lens = [
        answer.tokens if answer.tokens is not None else -(-len(answer.response.encode()) // _BYTES_PER_TOKEN)
        for answer in answers
    ]
    how = "tokens of the answering model" if known else "tokens of the answering model, or UTF-8 bytes / 4"
    return lens, (
        f"token_len counts {how}: the encoding of gpt-4o is not in tiktoken's cache. Before scores are controlled for"
        f" style, count again where tiktoken.get_encoding('{_ENCODING}') has run once"
    )


def _cached() -> bool:
    """Whether tiktoken has the encoding's file, undamaged, where it looks first; anything else it would download."""
    own = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if own == "":  # tiktoken's word for no cache
        return False
    folder = Path(tempfile.gettempdir()) / "data-gym-cache" if own is None else Path(own)
    file = folder / hashlib.sha1(_ADDRESS.encode()).hexdigest()
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == _DIGEST
