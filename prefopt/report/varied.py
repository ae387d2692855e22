"""In which settings the runs of a report differ, and what each is called by them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prefopt.config import NOT_IDENTITY
from prefopt.report.runs import Run

METHOD, SEED = "loss.name", "train.seed"

_OF_METHODS = ("loss", "data.margins")
"""Groups of which methods have keys of their own: that another method lacks them is no difference."""

_SOURCES = ("data.train", "data.eval")
"""Sources of data: that another run has no such source is said by its path, and not by its split and limit besides."""

_MISSING = object()


def varied_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys in which runs differ, of those that decide numbers, in the order in which the settings have them.

    A setting of a method that others do not have (loss.beta beside loss.lam) counts where those that have it differ;
    any other one that some lack (model.lora.r) counts as a value of its own. Of a source of data that some lack, its
    path does.
    """
    plain = [
        {key: _plain(value) for key, value in known.items() if not _is_in(key, NOT_IDENTITY)} for known in settings
    ]
    different = list({tuple(known.items()): known for known in plain}.values())
    if len(different) < 2:
        return []
    keys = dict.fromkeys(key for known in different for key in known)
    # The method first: all else is read in its light. The seed last: it is only a repetition.
    return sorted((key for key in keys if _differs(key, different)), key=lambda key: (key == SEED, key != METHOD))


def with_labels(runs: Sequence[Run], keys: Sequence[str]) -> list[Run]:
    """The runs with `varied` filled, and a name and a label each that no other has.

    settings of a run: where they are empty, its `varied` as it stands (a job that has no folder yet).
    """
    known = [run.settings or run.varied for run in runs]
    varied = [{key: values[key] for key in keys if key in values} for values in known]
    runs = [replace(run, varied=values) for run, values in zip(runs, varied)]
    texts = [text_of_values(runs, key) for key in keys]
    names = short_names(keys)
    called = _folder_names(runs)
    labels = []
    for place, run in enumerate(runs):
        words = [f"{names[key]}={column[place]}" for key, column in zip(keys, texts) if key in run.varied]
        labels.append(" ".join(words) or called[place])
    often = Counter(labels)
    labels = [
        f"{label} ({name})" if often[label] > 1 and label != name else label for label, name in zip(labels, called)
    ]
    return [replace(run, label=label, name=name) for run, label, name in zip(runs, labels, called)]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Each key by its last part, or as many of its last parts as tell it from the others; loss.name is "loss"."""
    found = {}
    for key in keys:
        parts = key.split(".")
        for length in range(1, len(parts) + 1):
            short = ".".join(parts[-length:])
            # "0.path" says less than "train.0.path"
            is_alone = sum(other == key or other.endswith(f".{short}") for other in keys) == 1
            if is_alone and not (length > 1 and parts[-length].isdigit()):
                break
        found[key] = "loss" if key == METHOD else short
    return found


def text_of_values(runs: Sequence[Run], key: str) -> list[str]:
    """What each run has for a varied key, as a person writes it; "" where it has none.

    Paths by their ends: train.jsonl beside mine.jsonl, a/pairs.jsonl beside b/pairs.jsonl.
    """
    values = [run.varied.get(key, _MISSING) for run in runs]
    texts = list(dict.fromkeys(value for value in values if isinstance(value, str)))
    short = dict(zip(texts, ends_of([text.split("/") for text in texts])))
    return ["" if value is _MISSING else short[value] if isinstance(value, str) else shown(value) for value in values]


def shown(value: Any) -> str:
    """A setting's value as a person writes it."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _differs(key: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    values = {known.get(key, _MISSING) for known in settings}
    if _is_in(key, _OF_METHODS) or (_is_in(key, _SOURCES) and not key.endswith(".path")):
        values.discard(_MISSING)
    return len(values) > 1


def _is_in(key: str, groups: Sequence[str]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def _plain(value: Any) -> Any:
    """Something that can be hashed; 1 and 1.0 are the same, true and 1 are not."""
    return value if type(value) in (str, int, float) else json.dumps(value, sort_keys=True, default=str)


def _folder_names(runs: Sequence[Run]) -> list[str]:
    """Each run by the last parts of its folder, as few as tell it from the others; one that has a label already by it.

    Those are jobs that have no folder, and models that were evaluated: their folder is the evaluation's.
    """
    return ends_of(
        [(run.label or "run",) if run.label or not run.folder else run.folder.resolve().parts for run in runs]
    )


def ends_of(whole: Sequence[Sequence[str]]) -> list[str]:
    """Of each path the last parts, as few as tell it from the others; all of it where they do not. No path is empty."""
    length = [1] * len(whole)
    while True:
        names = ["/".join(parts[-n:]) for parts, n in zip(whole, length)]
        often = Counter(names)
        again = [place for place, name in enumerate(names) if often[name] > 1 and length[place] < len(whole[place])]
        if not again:
            return names
        for place in again:
            length[place] += 1
