"""prefopt in a notebook: compose and train a run, read one, score rows, build a batch and call a loss on it.

Whatever prefopt promises to keep is here; other modules may change from release to release. Importing this is light:
torch and transformers come with the first function that needs them. Mistakes of a user are `UserError`s, as on the
command line. docs/api.md has an example of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt.batch import Batch, Loss, Responses
from prefopt.errors import RunError, UserError
from prefopt.settings import RunSettings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from prefopt.pairs.packed import PackedModel

__all__ = [
    "Model",
    "Run",
    "RunError",
    "Score",
    "UserError",
    "compose",
    "load_model",
    "load_run",
    "loss_value",
    "make_batch",
    "make_loss",
    "read_metrics",
    "respond",
    "score",
    "train",
]


@dataclass(frozen=True)
class Run:
    """A run's folder as it is now.

    dir: the folder. settings: as they were composed. manifest: how it came about (versions, seeds, starts).
    state: done, stopped, failed, or unfinished where nobody wrote down how it ended: it may still run.
    result: what result.json holds (`before`, `after`: figures of the evaluations). model: the trained model's folder.
    Both None unless the run is done. message: why it is not, None where it is or nobody could say.
    """

    dir: Path
    settings: RunSettings
    manifest: Mapping[str, Any]
    state: str
    result: Mapping[str, Any] | None
    model: Path | None
    message: str | None

    def __repr__(self) -> str:
        """One line: settings and manifest are long."""
        said = f", model={str(self.model)!r}" if self.model else f", message={self.message!r}" if self.message else ""
        return f"Run(dir={str(self.dir)!r}, name={self.settings.name!r}, state={self.state!r}{said})"


@dataclass(frozen=True)
class Score:
    """What a model gives to the responses of one row, in the order of the row (a pair: chosen, rejected).

    id: names the row, "rows:1" being the first. num_tokens: of each response, EOS included.
    logps: log p(response | prompt), nats, summed over its tokens; mean_logps: per token; both None of a reward model.
    rewards: of a reward model what its head gives; of a language model beside a reference
    beta * (logp - reference logp), else None.
    """

    id: str
    num_tokens: list[int]
    logps: list[float] | None
    mean_logps: list[float] | None
    rewards: list[float] | None


@dataclass(frozen=True)
class Model:
    """A model that is held for asking, frozen, with its tokenizer. is_reward: whether it has a scalar head.

    Made by `load_model`; `packed` is prefopt's own and may change.
    """

    path: str
    device: str
    is_reward: bool
    packed: PackedModel

    def __repr__(self) -> str:
        """One line: the weights are long."""
        return f"Model({self.path!r}, device={self.device!r}, is_reward={self.is_reward})"

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer, with the chat template it is used with."""
        return self.packed.encoder.tokenizer


def compose(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> RunSettings:
    """The run that `prefopt train OVERRIDES` means: `compose(["recipe=quickstart", "loss=simpo"])`.

    config_dir: a folder of your own recipes. Raises: UserError naming the key or file that cannot be composed.
    """
    from prefopt.config import compose as composed

    return composed(list(overrides), None if config_dir is None else Path(config_dir))


def train(
    run: Sequence[str] | RunSettings,
    config_dir: str | Path | None = None,
    allow_change: Sequence[str] = (),
    quiet: bool = False,
) -> Run:
    """Train as `prefopt train` does, in processes of its own, or go on with what the run's folder holds.

    run: overrides, or what `compose` gave. config_dir: as of `compose`, beside overrides. allow_change: keys that may
    differ from the run in the folder. quiet: print nothing. A run that stops on a signal or fails is returned too: see
    its `state` and `message`.

    Raises: UserError or RunError for whatever keeps it from starting.
    """
    from rich.console import Console

    from prefopt.checks import check
    from prefopt.config import compose_with_origins
    from prefopt.launch import train as launch
    from prefopt.output import turned

    origins: dict[str, str] = {}
    if isinstance(run, RunSettings):
        if config_dir is not None:
            raise UserError("train: config_dir has no effect on a run that is composed", "give it to compose")
        settings = run
    else:
        composition = compose_with_origins(list(run), None if config_dir is None else Path(config_dir))
        settings, origins = composition.run, composition.origins
    check(settings)
    with turned(quiet, as_json=False):
        code = launch(settings, ["prefopt.api.train"], Console(), None, list(allow_change), origins)
    return _run(Path(settings.dir), code)


def load_run(folder: str | Path) -> Run:
    """The run in a folder, done or not.

    Raises: UserError where the folder holds no run, or a damaged one.
    """
    return _run(Path(folder), None)


def read_metrics(run: Run | str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl in their order: `step`, and what was measured there; empty before the first.

    The last line is left out while it is being written.

    Raises: UserError where the folder holds no run, or a line before the last is damaged.
    """
    import json

    folder = run.dir if isinstance(run, Run) else load_run(run).dir
    file = folder / "metrics.jsonl"
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            found.append(json.loads(line))
        except ValueError:
            raise UserError(f"{file}:{number}: is not JSON", "restore the file") from None
    return found


def load_model(
    path: str | Path,
    dtype: str = "float32",
    device: str = "auto",
    chat_template: str | None = None,
    tokens_per_batch: int = 8192,
) -> Model:
    """A language or reward model, or adapters, for `score` and `respond`.

    path: a folder, a hub name or demo://manners/base. dtype: float32 or bfloat16. device: auto (a GPU where there is
    one), cpu or cuda. chat_template: a built-in name or a .jinja file, in place of the tokenizer's. tokens_per_batch:
    tokens on the device at once.

    Raises: UserError for what cannot be loaded; RunError where the hub cannot be reached.
    """
    from prefopt.api_rows import open_model

    path = str(path)
    is_reward, where, packed = open_model(path, dtype, device, chat_template, tokens_per_batch)
    return Model(path, where, is_reward, packed)


def score(
    model: Model,
    rows: Sequence[Mapping[str, Any]],
    reference: Model | None = None,
    beta: float | None = None,
    format: str = "auto",
) -> list[Score]:
    """What a model gives to each response of each row.

    rows: in any format that `data.train` takes, for instance {"prompt": ..., "chosen": ..., "rejected": ...}.
    reference, beta: for the implicit reward of a language model, both or neither. The reference reads conversations by
    the model's chat template, as it does in training. format: of the rows, as of a source of `data.train`; `auto`
    recognises it from their columns.

    Raises: UserError for a row that cannot be read or encoded: none is left out in silence.
    """
    from prefopt.api_rows import encode, reading_as

    _check_model("score: model", model)
    if reference is not None:
        _check_model("score: reference", reference)
    if (reference is None) != (beta is None):
        raise UserError("score: reference and beta belong together", "give both, or neither")
    if reference is not None and (model.is_reward or reference.is_reward):
        raise UserError("score: an implicit reward is of two language models", "leave reference and beta out")
    beside = [] if reference is None else [reading_as(reference.packed, model.packed)]
    tokens, *of_reference = encode(model.packed, *beside, rows=rows, form=format)
    lengths = [[len(ids or ()) for ids in one.responses] for one in tokens]
    if model.is_reward:
        heads = model.packed.rewards(tokens)
        of_head = [[float(values[0]) for values in row if values is not None] for row in heads]
        return [Score(one.id, n, None, None, r) for one, n, r in zip(tokens, lengths, of_head, strict=True)]
    logps = _numbers(model.packed.logps(tokens))
    rewards: list[list[float] | None] = [None] * len(logps)
    if beside and beta is not None:
        theirs = _numbers(beside[0].logps(of_reference[0]))
        rewards = [[beta * (a - b) for a, b in zip(x, y, strict=True)] for x, y in zip(logps, theirs, strict=True)]
    means = [[a / n for a, n in zip(row, of, strict=True)] for row, of in zip(logps, lengths, strict=True)]
    return [Score(t.id, n, a, m, r) for t, n, a, m, r in zip(tokens, lengths, logps, means, rewards, strict=True)]


def make_loss(name: str, settings: Mapping[str, Any] | None = None) -> Loss:
    """A method by its name, with those of its settings that are not the default: `make_loss("simpo", {"beta": 2.5})`.

    `prefopt losses NAME` lists them. Raises: UserError for a method, a setting or a value that there is not.
    """
    from prefopt.losses import make_loss as made

    if settings and "name" in settings:
        raise UserError("make_loss: the name is the first argument", "leave it out of the settings")
    return made({"name": name, **(settings or {})})


def make_batch(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    loss: Loss,
    reference: Model | None = None,
    max_length: int = 2048,
    format: str = "auto",
) -> Batch:
    """Rows encoded as training encodes them, and packed on one token axis, each prompt once; on the CPU.

    loss: what the batch is for: it decides which pairs, labels and scores are in it. reference: for losses that need
    its log-probabilities. max_length: tokens of prompt and response. format: as of `score`.

    Raises: UserError for a row that cannot be read, is too long, or lacks what the loss needs.
    """
    from prefopt.api_rows import batch_of

    if reference is not None:
        _check_model("make_batch: reference", reference)
    packed = None if reference is None else reference.packed
    return batch_of(rows, tokenizer, loss, packed, max_length, format)


def respond(model: Model, batch: Batch, loss: Loss) -> Responses:
    """A batch through a model, without gradients: what a loss sees of it.

    Raises: UserError where the loss trains rewards and the model has no head for them, or the other way round.
    """
    import torch

    from prefopt.model.forward import respond as forward

    _check_model("respond: model", model)
    if ("rewards" in loss.needs) != model.is_reward:
        wanted = "a reward model" if "rewards" in loss.needs else "a language model"
        raise UserError(f"respond: this loss is of {wanted}, and {model.path} is none", "take another model or loss")
    with torch.no_grad():
        return forward(model.packed.policy, batch.to(model.device), loss.needs)


def loss_value(loss: Loss, batch: Batch, responses: Responses) -> Tensor:
    """The loss of a batch that is the whole step: the sum of weight * mean over units of each term.

    batch: whose units are counted. responses: of the batch, by `respond`, or your own forward with gradients.
    """
    from prefopt.api_rows import whole_step
    from prefopt.losses.terms import terms

    return terms(loss, whole_step(loss, responses)).total(batch.counts())


def _check_model(what: str, model: object) -> None:
    """Raises: UserError where something else than a loaded model is given, a path above all."""
    if not isinstance(model, Model):
        call = f"load_model({str(model)!r})" if isinstance(model, str | Path) else "load_model(PATH)"
        raise UserError(f"{what} must be a model, not a {type(model).__name__}", f"give {call}")


def _numbers(found: Sequence[Sequence[float | None]]) -> list[list[float]]:
    return [[value for value in row if value is not None] for row in found]


def _run(folder: Path, code: int | None) -> Run:
    """code: of the command that has just ended; None where the folder alone tells."""
    from prefopt.run_folder import MANIFEST, RUN, read_json
    from prefopt.run_result import ended
    from prefopt.settings import load

    if not (folder / RUN).is_file():
        raise UserError(f"{folder} is no run: it holds no {RUN}", "give the folder that prefopt train names")
    found = ended(folder, code)
    model = found["model"]
    return Run(
        folder,
        load(folder / RUN),
        read_json(folder / MANIFEST) or {},
        found["state"],
        found["result"],
        None if model is None else Path(model),
        found["message"],
    )
