"""One source to one artefact: recognise, encode in one or several processes, write."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from prefopt.cache import alone
from prefopt.data.artefact import Artefact, find_artefact, key_of, notes_folder, write_artefact
from prefopt.data.encode import Encoder
from prefopt.data.fit import Limits
from prefopt.data.formats import recognise
from prefopt.data.load import limited, open_source
from prefopt.data.needs import DATA_NEEDS, check_needs, margin_names
from prefopt.data.pairing import Pairing
from prefopt.data.recognised import Recognised
from prefopt.data.rows import Row
from prefopt.data.schema import Chunk
from prefopt.data.tokenizer import tokenizer_fingerprint
from prefopt.errors import RunError, UserError
from prefopt.settings import DataSettings, SourceSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROWS_LOOKED_AT = 64  # to recognise a format
_ROWS_PER_CHUNK = 256
# Starting worker processes takes seconds (each imports transformers); fewer rows than this are done sooner without.
_ROWS_WORTH_WORKERS = 20_000


@dataclass(frozen=True)
class Built:
    """One source's artefact. from_cache: it was there already, and nothing was tokenised."""

    source: SourceSettings
    artefact: Artefact
    from_cache: bool


def build_source(
    source: SourceSettings,
    label: str | None,
    settings: DataSettings,
    tokenizer: PreTrainedTokenizerBase,
    needs: frozenset[str],
    cache_dir: Path,
) -> Built:
    """Finds the source's encoded rows in the cache, or makes them; of runs that start at once one makes them.

    label: the name its rows carry; None takes the last part of the path.

    Raises: UserError for a file, format or setting that cannot serve; RunError for disk, network or a lost worker.
    """
    if source.weight <= 0:
        raise UserError(f"{source.path}: weight must be above 0, not {source.weight}", "take the source out instead")
    opened = open_source(source, label)
    rows = limited(opened, source.limit)
    first = list(islice(rows, _ROWS_LOOKED_AT))
    if not first:
        raise UserError(f"{source.path}: no rows in it")
    with _naming_the_path(opened.label, source.path):
        recognised = recognise(first, source.format, source.path)
    check_needs(source, recognised, needs, settings)
    encoder = _encoder(settings, tokenizer, recognised, needs)
    key = key_of(
        {
            "rows": opened.digest(notes_folder(cache_dir)),
            "label": opened.label,
            "limit": source.limit,
            "tokenizer": tokenizer_fingerprint(tokenizer),
            "template": tokenizer.chat_template,
            "options": encoder.options(),
        }
    )
    found = find_artefact(cache_dir, key)
    if found is not None:
        return Built(source, found, True)
    facts = {
        "label": opened.label,
        "format": recognised.format.name,
        "columns": sorted(recognised.columns),
        "columns_unused": recognised.columns_unused(encoder.needs, encoder.margins),
        "has_prompt_column": "prompt" in recognised.columns,
        "holds": recognised.format.holds,
        "has_scores": recognised.gives("scores", needs),
    }
    waiting = alone(cache_dir, f"encoded-{key}", f"tokenising {source.path}")
    with waiting, _naming_the_path(opened.label, source.path):
        found = find_artefact(cache_dir, key)  # another run may have made it while this one waited
        if found is not None:
            return Built(source, found, True)
        chunks = _encode_all(encoder, chain(first, rows), settings.num_workers)
        return Built(source, write_artefact(cache_dir, key, facts, chunks), False)


@contextmanager
def _naming_the_path(label: str, path: str) -> Iterator[None]:
    """Errors that begin with a row's id, "pairs.jsonl:7", name the file as it was given, which its label may not."""
    try:
        yield
    except UserError as error:
        if not error.message.startswith(f"{label}:") or label == path:
            raise
        message = f"{path}{error.message.removeprefix(label)}"
        raise UserError(message, error.hint, error.exit_code) from error


def _encoder(
    settings: DataSettings, tokenizer: PreTrainedTokenizerBase, recognised: Recognised, needs: frozenset[str]
) -> Encoder:
    limits = Limits(settings.max_length, settings.max_prompt_length, settings.too_long)
    wanted = needs & DATA_NEEDS
    columns = margin_names(settings)
    if settings.margins and not columns:
        wanted -= {"margins"}  # models and lengths give them all, later
    pairing = Pairing(settings.pairs, settings.min_score_gap) if wanted & {"pairs", "labels"} else Pairing()
    return Encoder(tokenizer, recognised, wanted, pairing, settings.eos, limits, columns)


def _encode_all(encoder: Encoder, rows: Iterator[Row], num_workers: int | None) -> Iterator[Chunk]:
    """Chunks in the order of the rows. Neither their cut nor what is in them depends on the number of workers."""
    if num_workers is None:
        head = list(islice(rows, _ROWS_WORTH_WORKERS))
        num_workers = _num_cores() if len(head) == _ROWS_WORTH_WORKERS else 1
        rows = chain(head, rows)
    chunks = _chunks(rows)
    if num_workers == 1:
        return map(encoder.encode, chunks)
    return _in_processes(encoder, chunks, num_workers)


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, _ROWS_PER_CHUNK)):
        yield chunk


def _num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_processes(encoder: Encoder, chunks: Iterator[list[Row]], num_workers: int) -> Iterator[Chunk]:
    # Spawned, not forked: a fork beside running threads (a progress display, torch, tokenizers) can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, context, _start_worker, (encoder,))
    try:
        waiting = deque(pool.submit(_work, chunk) for chunk in islice(chunks, 2 * num_workers))
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(pool.submit(_work, chunk) for chunk in islice(chunks, 1))
            yield done
    except BrokenProcessPool as error:
        raise RunError(
            "a tokenising process was ended from outside, most likely for lack of memory",
            "set data.num_workers to a smaller number",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_worker_encoder: Encoder | None = (
    None  # set once in each worker process: an encoder is too large to send with every chunk
)


def _start_worker(encoder: Encoder) -> None:
    global _worker_encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _worker_encoder = encoder


def _work(rows: list[Row]) -> Chunk:
    assert _worker_encoder is not None
    return _worker_encoder.encode(rows)
