"""What other trainers call the settings of a run: the names of transformers, TRL, peft, axolotl and LLaMA-Factory.

Somebody who comes from there writes `train.learning_rate`, which is not near `optim.lr` by its letters, or `--resume`,
which needs no word here. Whole files are read by `prefopt import` (`prefopt/peers`); this is for one word on a command
line.
"""

from __future__ import annotations

from collections.abc import Container

_LENGTH = "data.max_length"
_GAMMA = "the paper's gamma is gamma_beta_ratio times beta"
_BATCH = "it is what all devices take together in a step, however it is cut"

NAMES: dict[str, tuple[str, str]] = {
    "learning_rate": ("optim.lr", ""),
    "num_train_epochs": ("train.epochs", ""),
    "num_epochs": ("train.epochs", ""),
    "per_device_train_batch_size": ("train.batch_size", _BATCH),
    "gradient_accumulation_steps": ("train.batch_size", _BATCH),
    "micro_batch_size": ("train.tokens_per_micro_batch", "it counts tokens"),
    "warmup_ratio": ("optim.warmup_ratio", ""),
    "warmup_steps": ("optim.warmup_ratio", "it is a share of the steps"),
    "lr_scheduler_type": ("optim.schedule", ""),
    "lr_scheduler": ("optim.schedule", ""),
    "optim": ("optim.name", ""),
    "optimizer": ("optim.name", ""),
    "weight_decay": ("optim.weight_decay", ""),
    "max_grad_norm": ("optim.max_grad_norm", ""),
    "adam_beta1": ("optim.betas", ""),
    "adam_beta2": ("optim.betas", ""),
    "adam_epsilon": ("optim.eps", ""),
    "max_length": (_LENGTH, ""),
    "max_seq_length": (_LENGTH, ""),
    "max_seq_len": (_LENGTH, ""),
    "sequence_len": (_LENGTH, ""),
    "cutoff_len": (_LENGTH, ""),
    "max_prompt_length": ("data.max_prompt_length", ""),
    "dataset_name": ("data.train", "for instance data.train=[{path: pairs.jsonl}]"),
    "beta": ("loss.beta", ""),
    "pref_beta": ("loss.beta", ""),
    "gamma": ("loss.gamma_beta_ratio", _GAMMA),
    "simpo_gamma": ("loss.gamma_beta_ratio", _GAMMA),
    "loss_type": ("loss", "a method is chosen whole: loss=NAME"),
    "output_dir": ("dir", ""),
    "run_name": ("name", ""),
    "model_name_or_path": ("model.path", ""),
    "base_model": ("model.path", ""),
    "ref_model": ("model.reference", ""),
    "torch_dtype": ("model.dtype", "train.autocast=bf16 is for mixed precision"),
    "bf16": ("train.autocast", ""),
    "gradient_checkpointing": ("model.checkpoint_every", "1 for every layer"),
    "save_steps": ("train.save_every", ""),
    "save_strategy": ("train.save_every", ""),
    "save_total_limit": ("train.keep_checkpoints", ""),
    "eval_steps": ("train.eval_every", ""),
    "eval_strategy": ("train.eval_every", ""),
    "logging_steps": ("train.log_every", ""),
    "metric_for_best_model": ("train.best_metric", ""),
    "early_stopping_patience": ("train.early_stop_patience", ""),
    "report_to": ("tracker.name", ""),
    "use_peft": ("model.lora", "for instance model.lora.r=16"),
    "lora_r": ("model.lora.r", ""),
    "lora_rank": ("model.lora.r", ""),
    "lora_alpha": ("model.lora.alpha", ""),
    "lora_dropout": ("model.lora.dropout", ""),
    "lora_target_modules": ("model.lora.target_modules", ""),
    "load_in_4bit": ("model.lora.base", "nf4"),
    "load_in_8bit": ("model.lora.base", "int8"),
}
"""A peer's name to (our key, what is other about it)."""

GOES_ON = "the same command goes on from the newest checkpoint; dir=FOLDER names the run's folder"
WITHOUT_A_KEY = {
    **dict.fromkeys(("resume", "resume_from_checkpoint", "resume_from", "continue", "restart"), GOES_ON),
    **dict.fromkeys(("auto_resume", "load_checkpoint", "resume_training"), GOES_ON),
    "overwrite_output_dir": "a folder is never overwritten: another run has another dir=",
}
"""A peer's name to what is done here without any key."""

_RECIPE = "recipe=NAME, which is the file recipes/recipe/NAME.yaml"
_OUT = dict.fromkeys(("output", "output_dir", "out", "dir", "save_dir"), "out=FOLDER")
_DATA = "'data.train=[{path: FILE}]'"
_WORDS: dict[str, dict[str, str]] = {
    "train": {
        **dict.fromkeys(("config", "config_file", "config_name", "recipe"), _RECIPE),
        **dict.fromkeys(("output", "output_dir", "out", "dir", "save_dir"), "dir=FOLDER"),
        **dict.fromkeys(("data", "dataset", "dataset_name", "train_file"), _DATA),
        "model": "model.path=MODEL",
        "loss": "loss=NAME",
        "lr": "optim.lr=VALUE",
        "epochs": "train.epochs=VALUE",
        "batch_size": "train.batch_size=VALUE",
        "seed": "train.seed=VALUE",
    },
    "pairs": {**_OUT, "model": "policy=MODEL", "config": "recipe=NAME", "recipe": "recipe=NAME"},
    "eval": {**_OUT, "model": "model=MODEL", "run": "run=RUN", "measure": "measure=NAME"},
    "rounds": {"output_dir": "dir=FOLDER", "config": "recipe=NAME", "recipe": "recipe=NAME", "rounds": "rounds=N"},
    "export": _OUT,
}
"""Command to an option's name without dashes and the word that says it here."""


def as_an_option(option: str, command: str) -> str:
    """What is written here for an option that other tools have (`--resume`, `--learning_rate`); "" for any other.

    option: as it was written, with its dashes. command: whose option it was to be.
    """
    written, _, value = option.lstrip("-").partition("=")
    name = written.replace("-", "_")
    if name in WITHOUT_A_KEY and command == "train":
        return WITHOUT_A_KEY[name]
    if name in WITHOUT_A_KEY and command in ("pairs", "eval", "rounds"):
        return "the same command goes on: what is there already is not made again"
    is_of_a_run = command in ("train", "data", "plan")
    if said := _WORDS.get("train" if is_of_a_run else command, {}).get(name):
        return f"settings have no dashes: {said}"
    key, remark = NAMES.get(name.rpartition(".")[2], ("", "")) if is_of_a_run else ("", "")
    if key or "." in name:
        return f"settings have no dashes: {key or written}={value or 'VALUE'}" + (f" ({remark})" if remark else "")
    return ""


def of_a_peer(name: str, known: Container[str]) -> str:
    """ "did you mean optim.lr?" for the last part of a key that another trainer has; "" where none has it.

    known: the keys that there are; loss.beta is none of a method without it.
    """
    if name in WITHOUT_A_KEY:
        return WITHOUT_A_KEY[name]
    key, remark = NAMES.get(name, ("", ""))
    if key not in known:
        return ""
    return f"did you mean {key}?" + (f" ({remark})" if remark else "")
