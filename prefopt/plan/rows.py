"""The rows of a run: those of its folder, those of this machine, or what is said or published of them."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prefopt.cache import cache_folder
from prefopt.errors import UserError
from prefopt.model_check import check_tokenizer
from prefopt.plan.published import DATA_SETS
from prefopt.positions_check import check_positions
from prefopt.run_folder import MANIFEST, read_json
from prefopt.settings import RunSettings, SourceSettings

if TYPE_CHECKING:
    import numpy as np

    from prefopt.data.encoded_set import EncodedSet

SEVERAL = frozenset({"pairs", "ranking", "labels", "comparisons", "verdicts"})
"""Needs with which more than one response of a row is trained on."""


class Given(NamedTuple):
    """What the command line says of the data; None: not said."""

    rows: int | None = None
    prompt: int | None = None
    response: int | None = None


class AssumedSet:
    """Rows that nobody has seen, all of the same lengths: what `Rows` and a plan ask of an encoded set."""

    def __init__(self, name: str, rows: int, prompt: int, response: int, responses: int) -> None:
        self.name = name
        self._rows = rows
        self._prompt = prompt
        self._response = response
        self._responses = responses
        self.sources = [(0, rows, 1.0)]

    def __len__(self) -> int:
        return self._rows

    def _filled(self, count: int, value: int) -> np.ndarray:
        import numpy as np

        return np.full(count, value, dtype=np.int64)

    @cached_property
    def prompt_lengths(self) -> np.ndarray:
        """[E] tokens."""
        return self._filled(self._rows, self._prompt)

    @cached_property
    def response_lengths(self) -> np.ndarray:
        """[R] tokens."""
        return self._filled(self._rows * self._responses, self._response)

    @cached_property
    def response_offsets(self) -> np.ndarray:
        """[E + 1] where each row's responses begin."""
        import numpy as np

        return np.arange(self._rows + 1, dtype=np.int64) * self._responses

    @cached_property
    def num_pairs(self) -> np.ndarray:
        """[E] one where there are two responses."""
        return self._filled(self._rows, int(self._responses > 1))

    @cached_property
    def prompt_hashes(self) -> np.ndarray:
        """[E] no two alike."""
        import numpy as np

        return np.arange(self._rows, dtype=np.uint64)


class Sets(NamedTuple):
    """train, held_out: encoded or assumed. assumed: sentences. source: where they come from. longest: tokens of prompt
    and response that a row may have, where it is not known which it has.
    """

    train: EncodedSet | AssumedSet
    held_out: list[EncodedSet | AssumedSet]
    assumed: tuple[str, ...]
    source: str
    longest: int | None


def open_sets(run: RunSettings, needs: frozenset[str], given: Given) -> Sets:
    """The data: those of the run's folder, those that lie on this machine, or what is said or published of them.

    Raises: UserError where none of it is there, or the model takes no row as long as the longest of it.
    """
    if any(value is not None for value in given):
        return _assumed_sets(run, needs, given)
    described = _prepared_for(run)
    if described is not None:
        from prefopt.data.dataset import open_prepared

        prepared = open_prepared(described)
        check_positions(run, prepared)
        return Sets(prepared.train, list(prepared.eval.values()), (), f"as prepared in {run.dir}", None)
    are_here = all(_is_here(source.path) for source in (*run.data.train, *run.data.eval.values()))
    if are_here and _has_tokenizer(run.model.tokenizer or run.model.path):
        from prefopt import demo
        from prefopt.launch import prepare_data

        cache = cache_folder(run.data)
        real = demo.resolve(run, cache, weights=False)
        prepared = prepare_data(real, cache)
        check_positions(real, prepared)
        return Sets(prepared.train, list(prepared.eval.values()), (), "read on this machine", None)
    return _assumed_sets(run, needs, given)


def _prepared_for(run: RunSettings) -> dict[str, Any] | None:
    """What `data.json` of the run's folder says; None where there is none, or the folder is of other data."""
    folder = Path(run.dir)
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        return None
    told = manifest.get("settings", {})
    is_same = told.get("data") == asdict(run.data) and told.get("loss", {}).get("name") == run.loss["name"]
    return read_json(folder / "data.json") if is_same else None


def _is_here(path: str) -> bool:
    return path.startswith("demo://") or Path(path).expanduser().exists()


def _has_tokenizer(path: str) -> bool:
    try:
        check_tokenizer("model.tokenizer", path)
    except UserError:
        return False
    return _is_here(path)


def _assumed_sets(run: RunSettings, needs: frozenset[str], given: Given) -> Sets:
    """Sets of equal rows, by the command line and by what is published.

    Raises: UserError naming the options that would say what is not known.
    """
    known = [DATA_SETS.get(source.path) for source in run.data.train]
    rows = given.rows
    if rows is None:
        counts = [_published_rows(source) for source in run.data.train]
        if None in counts:
            raise _unknown(run, run.data.train[counts.index(None)].path, "--rows N")
        rows = round(sum(n * source.weight for n, source in zip(counts, run.data.train) if n is not None))
    first = next((k for k in known if k is not None), None)
    if first is None and (given.prompt is None or given.response is None):
        raise _unknown(run, run.data.train[0].path, "--rows N --prompt-tokens P --response-tokens R")
    prompt, response = (
        own if own is not None else published
        for own, published in zip(given[1:], (0, 0) if first is None else (first.prompt, first.response))
    )
    responses = 2 if needs & SEVERAL else 1
    said = "as given" if first is None or None not in given[1:] else first.source
    if prompt + response > run.data.max_length:
        raise UserError(
            f"{prompt} prompt tokens and {response} of a response are more than data.max_length={run.data.max_length}",
            "--prompt-tokens and --response-tokens say other lengths",
        )
    held_out = []
    size = run.data.eval_size
    if size:
        rest = round(size * rows) if size < 1 else min(int(size), rows - 1)
        rows -= rest
        held_out.append(AssumedSet("heldout", max(1, rest), prompt, response, responses))
    assumed = [
        f"all rows alike: {prompt:,} prompt tokens and {responses} responses of {response:,} ({said})",
    ]
    for name, source in run.data.eval.items():
        count = _published_rows(source)
        if count is None:
            count = 1000
            assumed.append(f"{name} has 1,000 rows")
        held_out.append(AssumedSet(name, count, prompt, response, responses))
    train = AssumedSet("train", max(1, rows), prompt, response, responses)
    origin = "--rows" if given.rows is not None else "published size"
    return Sets(train, list(held_out), tuple(assumed), origin, run.data.max_length)


def _published_rows(source: SourceSettings) -> int | None:
    known = DATA_SETS.get(source.path)
    count = None if known is None else known.splits.get(source.split)
    return count if count is None or source.limit is None else min(count, source.limit)


def _unknown(run: RunSettings, path: str, options: str) -> UserError:
    model = run.model.tokenizer or run.model.path
    why = f"no tokenizer of {model} is here to count with" if _is_here(path) else "it does not lie on this machine"
    return UserError(f"nothing is known of the rows of {path}: {why}", f"say it: {options}")
