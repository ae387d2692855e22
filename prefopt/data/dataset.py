"""What the rest of the house calls: `prepare` makes the encoded sets, `open_prepared` maps them again in a rank."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from prefopt.data.artefact import Artefact, open_artefact
from prefopt.data.build import Built, build_source
from prefopt.data.encoded_set import EncodedSet, Part, SourceSpan
from prefopt.data.report import DropError, check_drops, make_report
from prefopt.data.split import held_out
from prefopt.data.tokenizer import load_tokenizer, tokenizer_fingerprint
from prefopt.errors import RunError, UserError
from prefopt.settings import DataSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["DropError", "EncodedSet", "Prepared", "SourceSpan", "open_prepared", "prepare"]

HELD_OUT = "heldout"


@dataclass(frozen=True)
class Prepared:
    """Encoded data, ready to train on.

    eval: by name; rows held out of train are called "heldout". report: the account (`data_report.json`).
    left_out: {source, row, id, reason, detail} of every row that was left out.
    """

    train: EncodedSet
    eval: dict[str, EncodedSet]
    report: dict[str, Any]
    left_out: list[dict[str, Any]]
    _description: dict[str, Any] = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides the token ids, their order and their weights."""
        return _fingerprint({"train": self.train, **self.eval})

    def describe(self) -> dict[str, Any]:
        """Where the artefacts lie and what they must be, as JSON: enough for `open_prepared`."""
        return self._description


def prepare(
    settings: DataSettings, tokenizer_path: str, needs: frozenset[str], cache_dir: Path, revision: str | None = None
) -> Prepared:
    """Reads, encodes and splits the data, or finds it in the cache.

    needs: what the method asks for; without pairs, ranking or labels only the best response of a row is encoded.
    cache_dir: encoded rows are kept under cache_dir/encoded, by content. revision: of a tokenizer on the hub.

    Raises: UserError for data or settings that cannot serve (`DropError` where too many rows are left out);
        RunError for disk or network.
    """
    _check(settings)
    tokenizer = load_tokenizer(tokenizer_path, revision, settings.chat_template)
    named = {"train": settings.train, **{name: [source] for name, source in settings.eval.items()}}
    labels = _labels([source.path for sources in named.values() for source in sources])
    built = {
        name: [build_source(s, labels[s.path], settings, tokenizer, needs, cache_dir.resolve()) for s in sources]
        for name, sources in named.items()
    }
    left_out = _left_out({name: [(b.source.path, b.artefact) for b in ones] for name, ones in built.items()})
    _check_margins(built)
    any_kept = any(one.artefact.facts["kept"] for one in built["train"])
    # Without a row there is nothing to split, and the account below says why.
    sets = _sets(_placed(built), settings.eval_size if any_kept else 0.0)
    report = make_report(built, sets, settings, needs, _about(settings, tokenizer, tokenizer_path, sets))
    description = {
        "sources": {
            name: [
                {
                    "source": one.source.path,
                    "artefact": str(one.artefact.path),
                    "digests": one.artefact.digests,
                    "weight": one.source.weight,
                }
                for one in ones
            ]
            for name, ones in built.items()
        },
        "eval_size": settings.eval_size,
        "fingerprint": _fingerprint(sets),
        "report": report,
    }
    train = sets.pop("train")
    prepared = Prepared(train, sets, report, left_out, description)
    check_drops(built, settings.max_drop_fraction, prepared)
    return prepared


def open_prepared(description: dict[str, Any]) -> Prepared:
    """The data that `Prepared.describe()` described, memory-mapped; sources and tokenizer are not looked at.

    Raises: RunError where an artefact is missing or has changed.
    """
    opened = {
        name: [(one, open_artefact(Path(one["artefact"]), one["digests"])) for one in ones]
        for name, ones in description["sources"].items()
    }
    placed = {name: [(artefact, one["weight"]) for one, artefact in ones] for name, ones in opened.items()}
    left_out = _left_out({name: [(one["source"], artefact) for one, artefact in ones] for name, ones in opened.items()})
    sets = _sets(placed, description["eval_size"])
    if _fingerprint(sets) != description["fingerprint"]:
        raise RunError("the encoded data is not what this run was prepared with", "prepare the data again")
    train = sets.pop("train")
    return Prepared(train, sets, description["report"], left_out, description)


def _check(settings: DataSettings) -> None:
    if not settings.train:
        raise UserError("data.train names no source", "give at least one path under data.train")
    if settings.max_length < 2:
        raise UserError(f"data.max_length is {settings.max_length}: too short for a prompt and a response")
    if settings.max_prompt_length is not None and settings.max_prompt_length < 1:
        raise UserError(f"data.max_prompt_length is {settings.max_prompt_length}: too short for a prompt")
    if settings.num_workers is not None and settings.num_workers < 1:
        raise UserError(f"data.num_workers must be 1 or more, or null, not {settings.num_workers}")
    taken = {"train": "the training set", **({HELD_OUT: "data.eval_size"} if settings.eval_size else {})}
    for name in settings.eval:
        if name in taken:
            raise UserError(f"data.eval.{name}: this name is taken by {taken[name]}", "call the eval set otherwise")


def _check_margins(built: Mapping[str, Sequence[Built]]) -> None:
    """Raises: UserError where rows differ in how many rewards of other objectives they have: a batch has columns."""
    found: dict[int, str] = {}
    for one in (one for ones in built.values() for one in ones):
        stored = one.artefact.rows.data.column("margins")
        for count in pc.unique(pc.list_value_length(pc.list_flatten(stored))).to_pylist():
            found.setdefault(count, one.source.path)
    if len(found) > 1:
        counts = ", ".join(f"{count} in {path}" for count, path in sorted(found.items()))
        raise UserError(f"rows differ in how many margins a response has: {counts}", "give every row the same number")


def _labels(paths: Sequence[str]) -> dict[str, str | None]:
    """The names that rows carry, by path: None for the usual one, or the whole path where two files share a name."""
    names = [Path(path).name for path in set(paths)]
    return {path: path if names.count(Path(path).name) > 1 else None for path in paths}


def _placed(built: Mapping[str, Sequence[Built]]) -> dict[str, list[tuple[Artefact, float]]]:
    return {name: [(one.artefact, one.source.weight) for one in ones] for name, ones in built.items()}


def _sets(placed: Mapping[str, Sequence[tuple[Artefact, float]]], eval_size: float) -> dict[str, EncodedSet]:
    """The encoded sets by name, train first, the held-out rows of train apart."""
    wholes = {
        name: [Part(artefact, np.arange(artefact.facts["kept"]), weight) for artefact, weight in ones]
        for name, ones in placed.items()
    }
    train = EncodedSet("train", wholes["train"])
    sets = {"train": train}
    if eval_size:
        out = np.split(held_out(train.prompt_hashes, eval_size), [s.start for s in train.sources][1:])
        sets["train"] = EncodedSet(
            "train", [Part(p.artefact, p.places[~o], p.weight) for p, o in zip(train.parts, out)]
        )
        sets[HELD_OUT] = EncodedSet(HELD_OUT, [Part(p.artefact, p.places[o], 1.0) for p, o in zip(train.parts, out)])
    return sets | {name: EncodedSet(name, parts) for name, parts in wholes.items() if name != "train"}


def _left_out(sources: Mapping[str, Sequence[tuple[str, Artefact]]]) -> list[dict[str, Any]]:
    return [
        {"source": path, **row} for ones in sources.values() for path, artefact in ones for row in artefact.left_out()
    ]


def _fingerprint(sets: Mapping[str, EncodedSet]) -> str:
    text = json.dumps({name: rows.fingerprint for name, rows in sets.items()})
    return hashlib.sha256(text.encode()).hexdigest()


def _about(
    settings: DataSettings, tokenizer: PreTrainedTokenizerBase, path: str, sets: Mapping[str, EncodedSet]
) -> dict[str, Any]:
    template = tokenizer.chat_template
    return {
        "fingerprint": _fingerprint(sets),
        "tokenizer": {
            "path": path,
            "fingerprint": tokenizer_fingerprint(tokenizer),
            "bos": tokenizer.bos_token,
            "eos": tokenizer.eos_token,
            "chat_template": settings.chat_template or ("the tokenizer's own" if template else None),
            "chat_template_sha256": hashlib.sha256(template.encode()).hexdigest() if template else None,
        },
        "settings": {
            key: getattr(settings, key)
            for key in (
                *("max_length", "max_prompt_length", "too_long", "eos", "pairs", "min_score_gap"),
                *("eval_size", "max_drop_fraction"),
            )
        }
        | {"margins": [asdict(margin) for margin in settings.margins]},
    }
