"""The sets of `measure=preferences`, encoded as training encodes them, with their categories and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from prefopt.cache import cache_folder
from prefopt.data.build import build_source
from prefopt.data.dataset import HELD_OUT, EncodedSet, prepare
from prefopt.data.encoded_set import Part
from prefopt.data.load import read_rows
from prefopt.errors import UserError, did_you_mean
from prefopt.evaluate.set_settings import NamedSet
from prefopt.evaluate.trained import Trained
from prefopt.pairs.places import real
from prefopt.run_folder import MANIFEST, read_json
from prefopt.settings import DataSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class MeasuredSet:
    """One set. categories [E]: of each row, None for a row without one; or None. left_out: rows by reason. note: what a
    reader has to know, or ""."""

    name: str
    data: EncodedSet
    categories: list[str | None] | None = None
    left_out: Mapping[str, int] | None = None
    note: str = ""


def sets_of_files(
    named: Mapping[str, NamedSet], settings: DataSettings, tokenizer: PreTrainedTokenizerBase, needs: frozenset[str]
) -> list[MeasuredSet]:
    """The sets, each from its file. settings: how rows are paired and fitted. needs: what the method asks of the data.

    Raises: UserError for a file that cannot serve, or of which not one row can; RunError for disk or network.
    """
    found = []
    for name, one in named.items():
        source = replace(one.source(), path=real(one.path, f"measure.sets.{name}"))
        try:
            built = build_source(source, None, settings, tokenizer, needs, cache_folder(settings).resolve())
        except UserError as error:
            raise UserError(f"measure.sets.{name}: {error.message}", error.hint, error.exit_code) from None
        data = EncodedSet(name, [Part(built.artefact, np.arange(built.artefact.facts["kept"]), 1.0)])
        left_out = Counter(row["reason"] for row in built.artefact.left_out())
        if not len(data):
            reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
            raise UserError(f"measure.sets.{name}: not one row of {one.path} can be measured ({reasons})", "other data")
        categories = None
        if one.category is not None:
            categories = _categories(one, replace(one, path=source.path), data, f"measure.sets.{name}.category")
            if without := sum(category is None for category in categories):
                left_out[f"without {one.category}, in no category"] += without
        found.append(MeasuredSet(name, data, categories, left_out))
    return found


def sets_of_run(trained: Trained, settings: DataSettings, needs: frozenset[str]) -> list[MeasuredSet]:
    """The evaluation sets of a run. settings: those of the run, but for pairs and max_length.

    Raises: UserError where it has none, or its data have changed since; else as `prepare`.
    """
    run = trained.settings
    if not settings.eval and not settings.eval_size:
        raise UserError(f"run={trained.folder} has no evaluation set", "measure.sets={heldout: FILE}")
    revision = run.model.revision if run.model.tokenizer is None else None
    prepared = prepare(settings, run.model.tokenizer or run.model.path, needs, cache_folder(settings), revision)
    then = (read_json(trained.folder / MANIFEST, "run") or {}).get("data_fingerprint")
    if settings == run.data and needs == _trained_on(trained) and prepared.fingerprint != then:
        raise UserError(
            f"run={trained.folder}: its data, tokenizer or template is not what it was trained on",
            "restore it, or name files: measure.sets={heldout: FILE}",
        )
    found = []
    for name, data in prepared.eval.items():
        if not len(data):
            raise UserError(f"run={trained.folder}: not one row of {name} can be measured", "name measure.sets")
        if name == HELD_OUT and name not in settings.eval:
            lost = trained.folder / "left_out.jsonl"
            note = f"{name}: held out of the training file; what was left out of that is in {lost}"
            found.append(MeasuredSet(name, data, note=note))
            continue
        path = settings.eval[name].path
        left_out = Counter(row["reason"] for row in prepared.left_out if row["source"] == path)
        found.append(MeasuredSet(name, data, left_out=left_out))
    return found


def _trained_on(trained: Trained) -> frozenset[str]:
    from prefopt.losses import make_loss

    return make_loss(trained.settings.loss).needs


def _categories(said: NamedSet, one: NamedSet, data: EncodedSet, key: str) -> list[str | None]:
    """The category of each row. said: as the user wrote it.

    Raises: UserError where no row has the column.
    """
    assert one.category is not None
    of_row: dict[str, str] = {}
    columns: dict[str, None] = {}
    for row in read_rows(one.source()):
        columns.update(dict.fromkeys(row.value))
        value = row.value.get(one.category)
        if isinstance(value, (str, int, bool)) and str(value).strip():
            of_row[row.id] = str(value)
    if not of_row:
        known = did_you_mean(one.category, columns)
        raise UserError(f"{key}: no row of {said.path} has a column {one.category!r} with a name in it", known)
    return [of_row.get(data[place].id) for place in range(len(data))]


def data_settings(
    trained: Trained | None, pairs: str | None, max_length: int | None, chat_template: str | None, positions: int | None
) -> DataSettings:
    """How rows become tokens: as in the run, or for any model as `prefopt train` would with as much room as there is.

    pairs, max_length, chat_template: in place of the run's, where they are given. positions: of the model; None: it
    names no limit.

    Raises: UserError for a max_length that the model has no positions for.
    """
    if max_length is not None and positions is not None and max_length > positions:
        raise UserError(
            f"measure.max_length={max_length}: the model has {positions} positions", f"measure.max_length={positions}"
        )
    base = DataSettings(max_length=positions or 2**31 - 1) if trained is None else trained.settings.data
    return replace(
        base,
        pairs=pairs or base.pairs,
        max_length=max_length or base.max_length,
        chat_template=chat_template or base.chat_template,
    )
