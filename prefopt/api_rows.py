"""Rows that a caller holds, on their way to models and losses: read, encoded and packed as a file's are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prefopt.batch import Batch, CoupledLoss, Loss, Responses, WholeStep
from prefopt.data.encode import Encoder
from prefopt.data.encoded_set import encoded_row
from prefopt.data.fit import Limits
from prefopt.data.formats import recognise
from prefopt.data.needs import DATA_NEEDS, check_needs
from prefopt.data.pairing import Pairing
from prefopt.data.rows import Row, Unusable
from prefopt.errors import UserError
from prefopt.evaluate.models import holds_reward_model
from prefopt.pack import pack
from prefopt.pairs.encode import Tokens
from prefopt.pairs.packed import PackedModel
from prefopt.pairs.places import real
from prefopt.pairs.score_models import open_language_model, open_reward_model
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import Place
from prefopt.records import Example
from prefopt.settings import DataSettings, SourceSettings
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
    (where, *_) = devices_of(device, 1).names
    lies_at = real(path, "path")
    settings = PairsSettings(
        policy=lies_at, dtype=dtype, chat_template=chat_template, tokens_per_batch=tokens_per_batch
    )
    place = Place(settings, where, "")
    if holds_reward_model(lies_at):
        return True, where, open_reward_model(place, lies_at, "path")
    return False, where, open_language_model(place, lies_at, "path")


def as_examples(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
    """Rows as text. Raises: UserError for no rows, or one that does not fit the format of the first ones."""
    numbered = _numbered(rows)
    recognised = recognise(numbered, "auto", LABEL)
    found = []
    for row in numbered:
        try:
            found.append(recognised.example(row))
        except Unusable as reason:
            raise _unusable(row.id, reason.reason, reason.detail) from None
    return found


def encode(model: PackedModel, examples: Sequence[Example]) -> list[Tokens]:
    """The ids that a model reads. Raises: UserError for a response that cannot be encoded."""
    found = [model.encoder(example) for example in examples]
    for one in found:
        for reason in filter(None, one.reasons):
            raise _unusable(one.id, reason, f"for {model.encoder.model}")
    return found


def batch_of(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    loss: Loss,
    reference: PackedModel | None,
    max_length: int,
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
    recognised = recognise(numbered, "auto", LABEL)
    check_needs(SourceSettings(path=LABEL), recognised, loss.needs, DataSettings())
    limits = Limits(max_length, None, "drop")
    chunk = Encoder(tokenizer, recognised, loss.needs & DATA_NEEDS, Pairing(), "append", limits).encode(numbered)
    for left_out in chunk.left_out:
        raise _unusable(f"{LABEL}:{left_out['row']}", left_out["reason"], left_out["detail"])
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
    if not rows:
        raise UserError("there are no rows")
    return [Row(LABEL, number, dict(row)) for number, row in enumerate(rows, 1)]


def _unusable(row: str, reason: str, detail: str) -> UserError:
    return UserError(f"{row}: {reason}" + (f" ({detail})" if detail else ""), "mend the row, or leave it out")
