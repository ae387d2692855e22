"""What the schema cannot say: rules across settings, checked before anything heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from prefopt.batch import WeighsMargins
from prefopt.engine_check import check_engine
from prefopt.errors import UserError
from prefopt.launch_check import check_batch_reaches, check_launch
from prefopt.losses import make_loss
from prefopt.memory_check import check_libraries, check_memory
from prefopt.model.files import adapter_folder, base_of
from prefopt.model_check import check_model, check_safetensors, check_tokenizer
from prefopt.needs import LIVE
from prefopt.settings import (
    DataSettings,
    MarginSettings,
    RunSettings,
    SampleSettings,
    SourceSettings,
    TrainSettings,
)


def check(run: RunSettings) -> None:
    """Refuse a run that cannot work here or that has a setting without effect.

    Raises: UserError naming the key; the first one found.
    """
    check_settings(run)
    check_libraries(run)


def check_settings(run: RunSettings) -> None:
    """As `check`, of a run that may take place on another machine: whatever libraries are installed here.

    Raises: UserError naming the key; the first one found.
    """
    loss = make_loss(run.loss)
    needs = loss.needs
    for key, name in (("name", run.name), ("tracker.project", run.tracker.project)):
        _check_name(key, name)
    _check_model(run, needs)
    _check_data(run)
    check_pairs(run, needs)
    check_margins(run, needs)
    if isinstance(loss, WeighsMargins) and run.data.margins:
        check_num_margins(run, loss.num_margins, len(run.data.margins), "data.margins names")
    _check_numbers(run)
    check_memory(run)
    _check_evaluation(run, needs)
    _check_trouble(run)
    check_engine(run, needs)
    check_launch(run.launch)
    if run.launch.num_processes is not None:
        check_batch_reaches(run, run.launch.num_processes)


def _check_name(key: str, name: str) -> None:
    """A name becomes that of a folder, a job or a file: it may lead nowhere else and hold no line of a script."""
    if not re.fullmatch(r"[^\W_][^/\\\x00-\x1f\x7f\u2028\u2029]{0,99}", name):
        must_be = "begin with a letter or digit and hold no /, no \\ and no line break, in at most 100 characters"
        raise UserError(
            f"{key} must {must_be}, not {name[:120]!r}", "another place: dir=FOLDER" if key == "name" else ""
        )


def _check_model(run: RunSettings, needs: frozenset[str]) -> None:
    model = run.model
    if not model.path:
        raise UserError("model.path is not set", "model.path=FOLDER or a hub name, model=NAME, or a recipe=NAME")
    check_model("model.path", model.path)
    check_tokenizer("model.tokenizer" if model.tokenizer else "model.path", model.tokenizer or model.path)
    if model.reference is not None:
        if not needs & ({"reference"} | LIVE):
            raise UserError(
                f"model.reference has no effect: loss={run.loss['name']} compares with no reference",
                "leave it out, or choose a loss that needs one (dpo)",
            )
        check_model("model.reference", model.reference)
    if model.layout == "padded" and model.attention != "auto":
        raise UserError(
            f"model.attention={model.attention} has no effect: padded rows keep the model's own attention",
            "leave it out, or use model.layout=auto",
        )
    every = model.checkpoint_every
    _require(every is None or every >= 1, "model.checkpoint_every", every, "1 or more, or null to keep all activations")
    if model.lora is not None:
        lora = model.lora
        _require(lora.r >= 1, "model.lora.r", lora.r, "1 or more")
        _require(lora.alpha > 0, "model.lora.alpha", lora.alpha, "above 0")
        _require(0 <= lora.dropout < 1, "model.lora.dropout", lora.dropout, "in [0, 1)")
        names = lora.target_modules
        is_list = isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)
        is_name = isinstance(names, str) and bool(names)
        _require(is_list or is_name, "model.lora.target_modules", names, "all-linear or a list of names")


def _check_data(run: RunSettings) -> None:
    data = run.data
    if not data.train:
        raise UserError("data.train is empty", "data.train=[{path: FILE}], data=NAME, or a recipe=NAME")
    for key, source in _sources(run):
        if not source.path:
            raise UserError(f"{key}.path is not set", "a file, a folder saved by datasets, or a hub name")
        _require(source.weight > 0, f"{key}.weight", source.weight, "above 0")
        _require(source.limit is None or source.limit >= 1, f"{key}.limit", source.limit, "1 or more, or null")
    for name, source in data.eval.items():
        _require(source.weight == 1.0, f"data.eval.{name}.weight", source.weight, "1: every row is judged once")
    _require(data.eval_size >= 0, "data.eval_size", data.eval_size, "0 or more")
    _require(data.max_length >= 2, "data.max_length", data.max_length, "2 or more tokens")
    longest = data.max_prompt_length
    below = f"below data.max_length={data.max_length}"
    _require(longest is None or 1 <= longest < data.max_length, "data.max_prompt_length", longest, below)
    _require(0 <= data.max_drop_fraction <= 1, "data.max_drop_fraction", data.max_drop_fraction, "in [0, 1]")
    workers = data.num_workers
    _require(workers is None or workers >= 1, "data.num_workers", workers, "1 or more, or null")


def check_pairs(run: RunSettings, needs: frozenset[str]) -> None:
    """Refuse a selection of pairs that has no effect: it matters to pairs, and to labels that are made of them.

    Raises: UserError naming the key.
    """
    data = run.data
    _require(data.min_score_gap >= 0, "data.min_score_gap", data.min_score_gap, "0 or more")
    if needs & {"pairs", "labels"}:
        return
    usual = DataSettings()
    for key in ("pairs", "min_score_gap"):
        value = getattr(data, key)
        if value != getattr(usual, key):
            raise UserError(
                f"data.{key}={value} has no effect: loss={run.loss['name']} learns from no pairs",
                "leave it out, or choose a loss that needs pairs (dpo)",
            )


def check_num_margins(run: RunSettings, wanted: int, found: int, who: str) -> None:
    """Refuse another number of margins than the method weighs.

    Raises: UserError naming both numbers. who: what has `found` of them, with its verb.
    """
    if found != wanted:
        raise UserError(
            f"loss={run.loss['name']} weighs {wanted} margins, {who} {found}",
            "one for each other objective; for modpo loss.weights has one number more",
        )


def check_margins(run: RunSettings, needs: frozenset[str]) -> None:
    """Refuse rewards of other objectives that nobody weighs, or whose kind lacks a key or has one too many.

    Raises: UserError naming the key.
    """
    if run.data.margins and "margins" not in needs:
        raise UserError(
            f"data.margins has no effect: loss={run.loss['name']} weighs no other objectives",
            "leave it out, or choose a loss that needs margins (modpo)",
        )
    usual = MarginSettings()
    for number, margin in enumerate(run.data.margins):
        where = f"data.margins.{number}"
        wanted = {"column": ("name",), "length": (), "implicit": ("path", "beta"), "reward": ("path",)}[margin.kind]
        for key in ("name", "path", "beta"):
            value = getattr(margin, key)
            if key not in wanted and value != getattr(usual, key):
                raise UserError(f"{where}.{key} has no effect: kind {margin.kind} takes no {key}", "leave it out")
            if key in wanted and value in (None, ""):
                raise UserError(f"{where}.{key} is not set", f"{where} of kind {margin.kind} needs it")
        _require(margin.beta > 0, f"{where}.beta", margin.beta, "above 0")
        if margin.path is not None:
            adapters = adapter_folder(margin.path) if margin.kind == "implicit" else None
            for file in adapters.glob("*.safetensors") if adapters else ():
                check_safetensors(f"{where}.path", file)
            check_model(f"{where}.path", base_of(adapters) if adapters else margin.path)


def _sources(run: RunSettings) -> Iterator[tuple[str, SourceSettings]]:
    for number, source in enumerate(run.data.train):
        yield f"data.train.{number}", source
    for name, source in run.data.eval.items():
        yield f"data.eval.{name}", source


def _check_numbers(run: RunSettings) -> None:
    optim, train, sample = run.optim, run.train, run.sample
    _require(optim.lr > 0, "optim.lr", optim.lr, "above 0")
    are_decays = len(optim.betas) == 2 and all(0 <= beta < 1 for beta in optim.betas)
    _require(are_decays, "optim.betas", optim.betas, "two numbers in [0, 1)")
    _require(optim.eps > 0, "optim.eps", optim.eps, "above 0")
    _require(optim.weight_decay >= 0, "optim.weight_decay", optim.weight_decay, "0 or more")
    _require(0 <= optim.warmup_ratio < 1, "optim.warmup_ratio", optim.warmup_ratio, "in [0, 1)")
    norm = optim.max_grad_norm
    _require(norm is None or norm > 0, "optim.max_grad_norm", norm, "above 0, or null for no clipping")
    _require(train.batch_size >= 1, "train.batch_size", train.batch_size, "1 or more")
    _require(train.epochs > 0, "train.epochs", train.epochs, "above 0")
    _require(train.max_steps is None or train.max_steps >= 1, "train.max_steps", train.max_steps, "1 or more, or null")
    tokens = train.tokens_per_micro_batch
    is_number = isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 1
    _require(is_number or tokens == "auto", "train.tokens_per_micro_batch", tokens, "auto, or 1 or more tokens")
    _require(train.log_every >= 1, "train.log_every", train.log_every, "1 or more")
    _require(train.keep_checkpoints >= 1, "train.keep_checkpoints", train.keep_checkpoints, "1 or more")
    _require(0 <= train.seed < 2**32, "train.seed", train.seed, "in [0, 2**32)")
    _require(sample.count >= 0, "sample.count", sample.count, "0 or more")
    _require(sample.max_new_tokens >= 1, "sample.max_new_tokens", sample.max_new_tokens, "1 or more")
    _require(sample.temperature >= 0, "sample.temperature", sample.temperature, "0 or more")
    _require(0 < sample.top_p <= 1, "sample.top_p", sample.top_p, "in (0, 1]")


def _check_evaluation(run: RunSettings, needs: frozenset[str]) -> None:
    train = run.train
    if run.sample.count and "rewards" in needs:
        raise UserError(
            f"sample.count={run.sample.count} has no effect: loss={run.loss['name']} trains a reward model,"
            " which writes no answers",
            "sample.count=0",
        )
    for key, value in (("train.eval_every", train.eval_every), ("train.save_every", train.save_every)):
        is_steps = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        _require(is_steps or value in ("epoch", "never"), key, value, "epoch, never, or a number of steps of 1 or more")
    has_eval_set = bool(run.data.eval) or run.data.eval_size > 0
    where = "give data.eval={heldout: {path: FILE}} or data.eval_size"
    if run.sample.count and not has_eval_set:
        raise UserError("sample.count needs held-out prompts, and there is no evaluation set", where)
    if train.early_stop_patience is not None:
        _require(train.early_stop_patience >= 1, "train.early_stop_patience", train.early_stop_patience, "1 or more")
        if train.best_metric is None:
            raise UserError(
                "train.early_stop_patience has no effect without train.best_metric",
                "for instance train.best_metric=eval/heldout/loss",
            )
    if train.best_metric is not None:
        if not has_eval_set:
            raise UserError("train.best_metric needs an evaluation set", where)
        if train.eval_every == "never":
            raise UserError("train.best_metric needs train.eval_every, which is never", "train.eval_every=epoch")


def _check_trouble(run: RunSettings) -> None:
    """What happens when numbers are not finite or the model collapses."""
    train, limits = run.train, run.sample
    _require(train.max_skipped_steps >= 1, "train.max_skipped_steps", train.max_skipped_steps, "1 or more")
    if train.on_nonfinite == "stop" and train.max_skipped_steps != TrainSettings().max_skipped_steps:
        raise UserError(
            f"train.max_skipped_steps={train.max_skipped_steps} has no effect: train.on_nonfinite=stop skips none",
            "train.on_nonfinite=skip_step, or leave it out",
        )
    is_steps = isinstance(limits.every, int) and not isinstance(limits.every, bool) and limits.every >= 1
    _require(
        is_steps or limits.every == "never", "sample.every", limits.every, "never, or a number of steps, 1 or more"
    )
    _require(0 <= limits.max_repetition < 1, "sample.max_repetition", limits.max_repetition, "in [0, 1)")
    _require(limits.max_drift > 0, "sample.max_drift", limits.max_drift, "above 0")
    if is_steps and not limits.count:
        raise UserError(f"sample.every={limits.every} has no effect: sample.count is 0", "sample.count=32")
    ineffective = [] if is_steps else ["on_collapse", "max_repetition", "max_drift"]
    if train.eval_every == "never":
        ineffective.append("max_drift")
    for key in ineffective:
        if getattr(limits, key) != getattr(SampleSettings(), key):
            why = "train.eval_every" if is_steps else "sample.every"
            raise UserError(f"sample.{key}={getattr(limits, key)} has no effect: {why} is never", "leave it out")


def _require(holds: bool, key: str, value: Any, must_be: str) -> None:
    if not holds:
        raise UserError(f"{key} must be {must_be}, not {value}")
