"""Rows that a caller holds, on their way to models and losses: read, encoded and packed as a file's are."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt.batch import Batch, CoupledLoss, Loss, Responses, WholeStep
from prefopt.data.encode import Encoder
from prefopt.data.encoded_set import encoded_row
from prefopt.data.fit import Limits
from prefopt.data.formats import recognise
from prefopt.data.needs import DATA_NEEDS, check_needs
from prefopt.data.pairing import Pairing
from prefopt.data.rows import Row, Unusable, kind_of
from prefopt.errors import UserError
from prefopt.evaluate.models import holds_reward_model
from prefopt.export.source import check_there
from prefopt.pack import pack
from prefopt.pairs.encode import CandidateEncoder, Tokens
from prefopt.pairs.packed import PackedModel
from prefopt.pairs.places import real
from prefopt.pairs.score_models import open_language_model, open_reward_model
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import Place
from prefopt.settings import DataSettings, SourceSettings
from prefopt.train.quiet import quietly
from prefopt.workers import devices_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LABEL = "rows"
"""The file that rows of a caller come from, as messages call it."""

NOT_OF_A_BATCH = {
    "reference_tokens": "the reference's log-probability of every token",
    "kl": "responses of other prompts",
    "forward_kl": "a live reference",
    "reverse_kl": "a live reference",
    "collision": "a live reference",
}
"""Needs that a batch of a caller's rows does not serve, though training does."""


def open_model(
    path: str, dtype: str, device: str, chat_template: str | None, tokens_per_batch: int
) -> tuple[bool, str, PackedModel]:
    """Whether it is a reward model, the device it lies on, and the model. Raises: as `prefopt.api.load_model`."""
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"load_model: dtype must be float32 or bfloat16, not {dtype!r}")
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"load_model: device must be auto, cpu or cuda, not {device!r}")
    lies_at = real(path, "path")
    check_there(lies_at, "load_model")
    (where, *_) = devices_of(device, 1).names
    settings = PairsSettings(
        policy=lies_at, dtype=dtype, chat_template=chat_template, tokens_per_batch=tokens_per_batch
    )
    place = Place(settings, where, "")
    with quietly():
        try:
            is_reward = holds_reward_model(lies_at)
        except UserError as error:  # which speaks of a training run's key
            raise UserError(re.sub("^model.path:", "path:", error.message), error.hint, error.exit_code) from error
        opened = (open_reward_model if is_reward else open_language_model)(place, lies_at, "path")
    return is_reward, where, opened


def encode(*models: PackedModel, rows: Sequence[Mapping[str, Any]], form: str) -> list[list[Tokens]]:
    """The ids that each of the models reads, one list for each. form: the rows' format, or "auto".

    Raises: UserError for no rows, or for the first row that cannot be read or encoded, with the number of such rows.
    """
    numbered = _numbered(rows)
    recognised = recognise(numbered, form, LABEL)
    found: list[list[Tokens]] = [[] for _ in models]
    unusable: list[tuple[str, str, str]] = []
    for row in numbered:
        try:
            example = recognised.example(row)
        except Unusable as reason:
            unusable.append((row.id, reason.reason, reason.detail))
            continue
        for model, tokens in zip(models, found, strict=True):
            tokens.append(model.encoder(example))
            if reason_why := next(filter(None, tokens[-1].reasons), None):
                unusable.append((row.id, reason_why, f"for {model.encoder.model}"))
                break
    _check_usable(unusable, len(numbered))
    return found


def reading_as(other: PackedModel, model: PackedModel) -> PackedModel:
    """`other` with the chat template of `model`: a reference reads the conversations that were trained on."""
    template, theirs = model.encoder.tokenizer.chat_template, other.encoder
    if template in (None, theirs.tokenizer.chat_template):
        return other
    tokenizer = copy.deepcopy(theirs.tokenizer)
    tokenizer.chat_template = template
    return replace(other, encoder=CandidateEncoder(tokenizer, theirs.max_length, theirs.model))


def batch_of(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    loss: Loss,
    reference: PackedModel | None,
    max_length: int,
    form: str,
) -> Batch:
    """As `prefopt.api.make_batch`."""
    for need, what in NOT_OF_A_BATCH.items():
        if need in loss.needs:
            raise UserError(f"make_batch: this loss needs {what}, which a batch of rows does not have", "prefopt train")
    if ("reference" in loss.needs) != (reference is not None):
        said = "needs a reference" if reference is None else "takes no reference"
        raise UserError(
            f"make_batch: this loss {said}", "give reference=MODEL" if reference is None else "leave it out"
        )
    numbered = _numbered(rows)
    recognised = recognise(numbered, form, LABEL)
    check_needs(SourceSettings(path=LABEL), recognised, loss.needs, DataSettings())
    limits = Limits(max_length, None, "drop")
    chunk = Encoder(tokenizer, recognised, loss.needs & DATA_NEEDS, Pairing(), "append", limits).encode(numbered)
    by_row = sorted(chunk.left_out, key=lambda row: int(row["row"]))
    _check_usable([(f"{LABEL}:{of['row']}", of["reason"], of["detail"]) for of in by_row], len(numbered))
    encoded = [encoded_row(place, row) for place, row in enumerate(chunk.kept.to_pylist())]
    if reference is not None:
        tokens = [Tokens(e.id, e.prompt, tuple(e.responses), (None,) * len(e.responses)) for e in encoded]
        columns = reference.logps(tokens)
        encoded = [
            replace(e, reference_logps=[value for value in column if value is not None])
            for e, column in zip(encoded, columns, strict=True)
        ]
    return pack(encoded, True, "prompt_logps" in loss.needs, whole_responses="rewards" in loss.needs)


def whole_step(loss: Loss, responses: Responses) -> Responses:
    """Responses as the loss sees them where they are the whole optimiser step."""
    if "step" not in loss.needs:
        return responses
    coupled: CoupledLoss = loss  # type: ignore[assignment]
    values = coupled.observe(responses).detach()
    return replace(responses, whole_step=WholeStep(values, slice(0, len(values))))


def _numbered(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    if isinstance(rows, Mapping):
        raise UserError("rows must be a list of rows, not one row", "put it into a list: [row]")
    if isinstance(rows, str | bytes | Path):
        raise UserError(
            f"rows must be a list of rows, not the name of a file: {str(rows)[:80]!r}",
            "read it: [json.loads(line) for line in open(FILE, encoding='utf-8')]",
        )
    given = list(rows)
    if not given:
        raise UserError("there are no rows")
    for number, row in enumerate(given, 1):
        if not isinstance(row, Mapping):
            raise UserError(f"{LABEL}:{number}: a row must be a mapping of column to value, not {kind_of(row)}")
    return [Row(LABEL, number, dict(row)) for number, row in enumerate(given, 1)]


def _check_usable(unusable: Sequence[tuple[str, str, str]], num_rows: int) -> None:
    """Raises: UserError for the first of these rows, and how many there are. Each: its name, a reason, a detail."""
    if not unusable:
        return
    row, reason, detail = unusable[0]
    others = f"; {len(unusable)} of {num_rows} rows cannot be used" if len(unusable) > 1 else ""
    raise UserError(f"{row}: {reason}{f' ({detail})' if detail else ''}{others}", "mend such rows, or leave them out")
