"""The part that all peers have from transformers' Trainer: steps, optimiser, schedule, batch, evaluation, saving."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from prefopt.peers.taking import Kind, Taking


@dataclass(frozen=True)
class Keys:
    """How a peer spells what transformers' Trainer spells so."""

    batch: str = "per_device_train_batch_size"
    accumulation: str = "gradient_accumulation_steps"
    epochs: str = "num_train_epochs"
    schedule: str = "lr_scheduler_type"
    optim: str = "optim"


@dataclass(frozen=True)
class Defaults:
    """What a peer takes where its file says nothing. Those of the method's own learning rate are the peer's."""

    lr: float
    batch: int = 8
    epochs: float = 3.0
    schedule: str = "linear"
    seed: int = 42
    warmup: float = 0.0


OPTIMISERS = {
    "adamw_torch": ("adamw", ""),
    "adamw_torch_fused": ("adamw", ""),
    "adamw_hf": ("adamw", ""),
    "adamw_torch_8bit": ("adamw_8bit", ""),
    "adamw_bnb_8bit": ("adamw_8bit", ""),
    "adamw_8bit": ("adamw_8bit", ""),
    "paged_adamw_8bit": ("paged_adamw_8bit", ""),
    "paged_adamw_32bit": ("adamw", "states are not paged here; the numbers are the same"),
    "paged_adamw": ("adamw", "states are not paged here; the numbers are the same"),
    "adafactor": ("adafactor", ""),
    "rmsprop": ("rmsprop", ""),
}
SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant",
    "constant_with_warmup": "constant",
    "inverse_sqrt": "inverse_sqrt",
}


def take_trainer(t: Taking, keys: Keys, defaults: Defaults) -> None:
    """Settings of `optim` and `train`."""
    _number(t, "learning_rate", "optim.lr", defaults.lr)
    _number(t, keys.epochs, "train.epochs", defaults.epochs)
    _whole(t, "seed", "train.seed", defaults.seed)
    steps = t.get("max_steps")
    if steps is not None and int(steps) > 0:
        t.take("max_steps", "train.max_steps", int(steps))
    else:
        t.note(Kind.WITHOUT, "max_steps", "epochs decide")
    batch = _batch(t, keys, defaults)
    _schedule(t, keys, defaults, batch)
    _optimiser(t, keys)
    _checkpointing(t)
    _moments(t)


def take_rhythm(t: Taking) -> None:
    """When it is evaluated, saved and logged."""
    for what, key in (("eval", t.first("eval_strategy", "evaluation_strategy")), ("save", "save_strategy")):
        how, steps = t.get(key), t.get(f"{what}_steps")
        to = f"train.{what}_every"
        if how in ("no", "epoch"):
            t.take(key, to, "never" if how == "no" else "epoch")
            t.note(Kind.WITHOUT, f"{what}_steps", f"{key}: {how}")
        elif isinstance(steps, (int, float)) and steps >= 1:
            t.take(f"{what}_steps", to, int(steps))
            t.note(Kind.TAKEN, key, to=to)
        else:
            t.note(Kind.NONE, f"{what}_steps", f"a share of all steps; {to} is a number of steps, epoch or never")
            t.note(Kind.WITHOUT, key, "without a number of steps")
    if (limit := t.get("save_total_limit")) is not None:
        t.take("save_total_limit", "train.keep_checkpoints", max(1, int(limit)))
    steps = t.get("logging_steps")
    if isinstance(steps, (int, float)) and steps >= 1:
        t.take("logging_steps", "train.log_every", int(steps))


def _number(t: Taking, key: str, to: str, default: float) -> None:
    value = t.get(key)
    if value is None:
        t.assume(key, to, default)
    else:
        t.take(key, to, as_number(value))


def _whole(t: Taking, key: str, to: str, default: int) -> None:
    value = t.get(key)
    if value is None:
        t.assume(key, to, default)
    else:
        t.take(key, to, int(value))


def as_number(value: Any) -> float:
    """A number, also one that YAML took for text (`5e-7`).

    Raises: ValueError where it is none.
    """
    if isinstance(value, bool):
        raise ValueError(f"expected a number, got {str(value).lower()}")
    return float(value)


def _batch(t: Taking, keys: Keys, defaults: Defaults) -> int:
    """Rows of a step: what one process takes at a time, times accumulation, times processes."""
    each, accumulated = int(t.get(keys.batch, defaults.batch)), int(t.get(keys.accumulation, 1))
    processes = t.options.processes
    total = each * accumulated * processes
    said = f"{each} x {accumulated} x {processes} {'process' if processes == 1 else 'processes'}"
    hint = "" if processes > 1 else "; the file does not say on how many it ran: processes=N"
    t.set("train.batch_size", total, f"from {keys.batch} x {keys.accumulation} x processes: {said}")
    note = f"rows of a step over all processes, {said}{hint}"
    for key in (keys.batch, keys.accumulation):
        t.note(Kind.OTHER, key, note, f"train.batch_size={total}")
        note = f"see {keys.batch}"
    return total


def _schedule(t: Taking, keys: Keys, defaults: Defaults, batch: int) -> None:
    name = str(t.get(keys.schedule, defaults.schedule))
    if name not in SCHEDULES:
        t.note(Kind.NONE, keys.schedule, f"there are {', '.join(sorted(set(SCHEDULES.values())))}; cosine is written")
        t.set("optim.schedule", "cosine", f"{keys.schedule}: {name} has no equivalent")
    elif keys.schedule in t.given and t.get(keys.schedule) is not None:
        t.take(keys.schedule, "optim.schedule", SCHEDULES[name])
    else:
        t.assume(keys.schedule, "optim.schedule", SCHEDULES[name])
    _warmup(t, keys, defaults, name, batch)


def _warmup(t: Taking, keys: Keys, defaults: Defaults, schedule: str, batch: int) -> None:
    ratio, steps = as_number(t.get("warmup_ratio", 0)), as_number(t.get("warmup_steps", 0))
    to = "optim.warmup_ratio"
    if schedule == "constant":
        t.set(to, 0.0, f"{keys.schedule}: constant has no warm-up")
        for key in ("warmup_ratio", "warmup_steps"):
            t.note(Kind.WITHOUT, key, f"{keys.schedule}: constant has no warm-up; constant_with_warmup has")
    elif 0 < steps < 1:
        t.take(
            "warmup_steps", to, steps, "below 1 it is a share of all steps, as newer versions of transformers read it"
        )
        t.note(Kind.WITHOUT, "warmup_ratio", "warmup_steps wins")
    elif steps >= 1:
        t.note(Kind.WITHOUT, "warmup_ratio", "warmup_steps wins")
        total = t.settings.get("train.max_steps")
        if total is None and t.options.rows is not None:
            total = math.ceil(t.options.rows / batch * t.settings["train.epochs"])
        if total is not None and steps < total:
            t.take("warmup_steps", to, round(steps / total, 6), f"a share here: {steps:g} of {total} steps")
        else:
            why = (
                "how many steps there are is not known: give rows=N for the share"
                if total is None
                else f"the run has {total} steps"
            )
            t.note(Kind.NONE, "warmup_steps", f"{to} is a share of all steps, and {why}; 0.1 is written", f"{to}=0.1")
            t.set(to, 0.1, f"warmup_steps: {steps:g} has no equivalent: {why}")
    elif t.get("warmup_ratio") is not None:
        t.take("warmup_ratio", to, ratio)
        t.note(Kind.WITHOUT, "warmup_steps", "0")
    else:
        t.assume("warmup_ratio", to, defaults.warmup)
        t.note(Kind.WITHOUT, "warmup_steps", "0")


def _optimiser(t: Taking, keys: Keys) -> None:
    name = t.get(keys.optim)
    if name is None:
        return
    if str(name) in OPTIMISERS:
        ours, said = OPTIMISERS[str(name)]
        t.choose(keys.optim, "optim", ours, said)
    else:
        t.note(
            Kind.NONE, keys.optim, f"there are {', '.join(sorted({n for n, _ in OPTIMISERS.values()}))}; adamw is taken"
        )


def _moments(t: Taking) -> None:
    is_adamw = "adamw" in t.groups.get("optim", "adamw")
    beta1, beta2 = t.get("adam_beta1"), t.get("adam_beta2")
    if is_adamw and (beta1, beta2) != (None, None):
        betas = [as_number(beta1 or 0.9), as_number(beta2 or 0.999)]
        t.set("optim.betas", betas, "from adam_beta1, adam_beta2")
    kind = Kind.TAKEN if is_adamw else Kind.WITHOUT
    for key in ("adam_beta1", "adam_beta2"):
        t.note(kind, key, to="optim.betas" if is_adamw else "")
    if t.get("adam_epsilon") is not None and is_adamw:
        t.take("adam_epsilon", "optim.eps", as_number(t.get("adam_epsilon")))
    if t.get("weight_decay") is not None:
        t.take("weight_decay", "optim.weight_decay", as_number(t.get("weight_decay")))
    if t.get("max_grad_norm") is not None:
        limit = as_number(t.get("max_grad_norm"))
        t.take("max_grad_norm", "optim.max_grad_norm", limit if limit > 0 else None)


def _checkpointing(t: Taking) -> None:
    if t.get("gradient_checkpointing"):
        t.take("gradient_checkpointing", "model.checkpoint_every", 1)
    else:
        t.note(Kind.WITHOUT, "gradient_checkpointing", "off")


ON_ONE_MACHINE = "where and how fast it runs; does not change the numbers here"
OF_THE_HUB = "prefopt trains and pushes apart: prefopt export RUN out=FOLDER push=USER/NAME"
CHOSEN_HERE = "prefopt chooses it (train.tokens_per_micro_batch, launch.*)"

WITHOUT_EFFECT: dict[str, str] = {
    **dict.fromkeys(("do_train", "do_eval", "overwrite_output_dir", "remove_unused_columns"), "always so here"),
    **dict.fromkeys(("log_level", "disable_tqdm", "logging_first_step", "logging_strategy", "logging_dir"), "logging"),
    **dict.fromkeys(("dataloader_num_workers", "dataloader_pin_memory", "ddp_timeout", "tf32"), ON_ONE_MACHINE),
    **dict.fromkeys(("ddp_find_unused_parameters", "group_by_length", "preprocessing_num_workers"), ON_ONE_MACHINE),
    **dict.fromkeys(("torch_compile", "attn_implementation", "use_liger_kernel", "dataset_num_proc"), ON_ONE_MACHINE),
    "gradient_checkpointing_kwargs": "re-computation is not reentrant here",
    "per_device_eval_batch_size": CHOSEN_HERE,
    "output_dir": "a run's folder is dir=FOLDER, runs/NAME-HASH by itself",
    "run_name": "name is the recipe's",
    "resume_from_checkpoint": "the same command goes on",
    "save_safetensors": "always so here",
    "precompute_ref_log_probs": "always so here: scored once and cached",
    "disable_dropout": "dropout is off here",
    "trust_remote_code": "never so here: a model's own code is not run",
    "report_to": "tracker=NAME; metrics.jsonl is always written",
    **dict.fromkeys(("push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_token"), OF_THE_HUB),
}
NO_EQUIVALENT: dict[str, str] = {
    "fp16": "train.autocast=bf16 and model.dtype=bfloat16 are there; fp16 would need a loss scale",
    "neftune_noise_alpha": "noise on embeddings is not there",
    "lr_scheduler_kwargs": "schedules have no settings of their own",
    "load_best_model_at_end": "train.best_metric=eval/NAME/loss keeps and takes the best checkpoint",
    "metric_for_best_model": "train.best_metric=eval/NAME/loss",
    "label_smoothing_factor": "no smoothing of tokens",
    "max_samples": "limit of a source: data.train=[{path: FILE, limit: N}]",
    "deepspeed": "deepspeed=zero0 to zero3, zero2_offload, zero3_offload",
    "fsdp": "fsdp=full_shard",
}
"""Keys of transformers' Trainer and what to say where the file sets them."""
