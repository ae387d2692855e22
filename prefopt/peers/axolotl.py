"""axolotl: YAML files of `axolotl train` (`src/axolotl/utils/schemas/`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefopt.errors import UserError
from prefopt.peers import trainer
from prefopt.peers.adapters import names, take_bf16, take_engine, take_lora
from prefopt.peers.taking import Kind, Taking
from prefopt.peers.trainer import Defaults, Keys, as_number, take_rhythm, take_trainer
from prefopt.peers.trl_methods import take_gamma

MARKS = frozenset({"base_model", "sequence_len", "micro_batch_size", "adapter", "val_set_size", "rl"})

KEYS = Keys(
    batch="micro_batch_size", epochs="num_epochs", schedule="lr_scheduler", optim="optimizer"
)  # fmt: skip


def take(t: Taking, file: Path) -> None:
    """Everything of such a file.

    Raises: UserError where its `rl` has no equivalent.
    """
    _method(t, file)
    if t.get("base_model") is not None:
        t.take("base_model", "model.path", str(t.get("base_model")))
    if t.get("revision_of_model") is not None:
        t.take("revision_of_model", "model.revision", str(t.get("revision_of_model")))
    if t.get("tokenizer_config") is not None:
        t.take("tokenizer_config", "model.tokenizer", str(t.get("tokenizer_config")))
    if any(t.get(key) is not None for key in ("bf16", "bfloat16", "fp16", "float16", "float32")):
        take_bf16(t, "bfloat16" if t.get("bfloat16") else "bf16")
    else:
        t.assume("bf16", "model.dtype", "bfloat16")
    _adapter(t)
    take_trainer(t, KEYS, Defaults(2e-4, batch=1, epochs=1.0, schedule="cosine", warmup=0.03))
    _rhythm(t)
    _data(t)
    take_engine(t)
    t.close({**trainer.NO_EQUIVALENT, **NO_EQUIVALENT}, {**trainer.WITHOUT_EFFECT, **WITHOUT_EFFECT})


def _method(t: Taking, file: Path) -> None:
    kind = t.get("rl")
    if kind is True:
        kind = "dpo"
    if kind is None:
        t.groups["loss"] = "reward_bt" if t.get("reward_model") else "sft"
        t.note(Kind.TAKEN if t.get("reward_model") else Kind.WITHOUT, "reward_model", to=f"loss={t.groups['loss']}")
        return
    beta_key = t.first("rl_beta", "dpo_beta")
    beta = as_number(t.get(beta_key, 0.1))
    said, to = "", "loss.beta"
    if kind in ("dpo", "ipo", "kto"):
        t.groups["loss"] = str(kind)
        if kind == "ipo":
            t.set("loss.normalisation", "mean", "from rl: ipo, which is TRL's")
        smoothing = as_number(t.get("dpo_label_smoothing", 0))
        if kind == "dpo" and smoothing:
            t.groups["loss"] = "cdpo"
            about = "TRL from 0.29, which axolotl hands it to, ignores it and trains DPO"
            t.take("dpo_label_smoothing", "loss.label_smoothing", smoothing, about)
    elif kind == "orpo":
        t.groups["loss"] = "orpo"
        beta_key, to, said = t.first("orpo_alpha", "rl_beta"), "loss.lam", "the weight of the odds-ratio term"
        beta = as_number(t.get(beta_key, 0.1))
        t.set("loss.nll_over", "sequence", "axolotl's is TRL's, whose NLL covers the prompt too")
    elif kind == "simpo":
        alpha = as_number(t.get("cpo_alpha", 1.0))
        t.groups["loss"] = "cpo_simpo" if alpha else "simpo"
        if alpha:
            _nll(t, alpha)
        else:
            t.note(Kind.TAKEN, "cpo_alpha", "0: no NLL", "loss=simpo")
        take_gamma(t, "simpo_gamma", beta, 0.5)
    else:
        raise UserError(f"{file}: rl: {kind} has no equivalent in prefopt", "dpo, ipo, kto, orpo and simpo have")
    is_other = t.groups["loss"] not in (kind, "cdpo")
    t.note(
        Kind.OTHER if is_other else Kind.TAKEN,
        "rl",
        "cpo_alpha is 1 where the file does not say 0: this is CPO-SimPO; for SimPO itself choose loss=simpo"
        if is_other
        else "",
        f"loss={t.groups['loss']}",
    )
    if t.get(beta_key) is None:
        t.assume(beta_key, to, beta)
    else:
        t.take(beta_key, to, beta, said)
    for key, ours in (("kto_desirable_weight", "desirable_weight"), ("kto_undesirable_weight", "undesirable_weight")):
        if kind == "kto" and t.get(key) is not None:
            t.take(key, f"loss.{ours}", as_number(t.get(key)))


def _nll(t: Taking, alpha: float) -> None:
    if t.get("cpo_alpha") is None:
        t.assume("cpo_alpha", "loss.nll_weight", alpha)
    else:
        t.take("cpo_alpha", "loss.nll_weight", alpha)


def _adapter(t: Taking) -> None:
    kind = t.get("adapter")
    if kind in ("lora", "qlora"):
        base = "nf4" if kind == "qlora" or t.get("load_in_4bit") else "int8" if t.get("load_in_8bit") else "plain"
        is_all = bool(t.get("lora_target_linear")) or t.get("lora_target_modules") is None
        modules: Any = "all-linear" if is_all else names(t.get("lora_target_modules"))
        take_lora(t, "lora_r", "lora_alpha", "lora_dropout", modules, base, (8, None, 0.0))
        for key in ("adapter", "load_in_4bit", "load_in_8bit", "lora_target_linear", "lora_target_modules"):
            t.note(Kind.TAKEN, key, to="model.lora")
        return
    t.note(Kind.NONE if kind else Kind.WITHOUT, "adapter", "LoRA and QLoRA are there")
    for key in t.unread:
        if key.startswith(("lora_", "peft_", "load_in_")):
            t.note(Kind.WITHOUT, key, "no adapter is named")


def _rhythm(t: Taking) -> None:
    for key, to in (("evals_per_epoch", "train.eval_every"), ("saves_per_epoch", "train.save_every")):
        number = t.get(key)
        if number == 1:
            t.take(key, to, "epoch")
        elif number == 0:
            t.take(key, to, "never")
        elif number is not None:
            t.note(Kind.NONE, key, f"{to} is a number of steps, epoch or never; epoch is written", to)
            t.set(to, "epoch", f"{key}: {number} has no equivalent")
    take_rhythm(t)


def _data(t: Taking) -> None:
    if t.get("sequence_len") is None:
        t.assume("sequence_len", "data.max_length", 512)
    else:
        t.take("sequence_len", "data.max_length", int(t.get("sequence_len")))
    t.set("data.too_long", "drop", "axolotl leaves rows out that are too long")
    for key, to in (("datasets", "data.train"), ("test_datasets", "data.eval")):
        found = t.get(key)
        if not found:
            continue
        sources = [_source(of) for of in found if isinstance(of, dict) and of.get("path")]
        odd = ", ".join(sorted({str(of.get("type")) for of in found if isinstance(of, dict) and of.get("type")}))
        said = f"type {odd}: prompts are rendered by the tokenizer's chat template; see prefopt data" if odd else ""
        value: Any = sources if key == "datasets" else {f"set{n}": s for n, s in enumerate(sources)}
        t.take(key, to, value, said)
    if t.get("val_set_size"):
        t.take("val_set_size", "data.eval_size", as_number(t.get("val_set_size")))
    template = t.get("chat_template")
    if template == "chatml":
        t.take("chat_template", "data.chat_template", "chatml")
    elif template not in (None, "tokenizer_default"):
        t.note(Kind.OTHER, "chat_template", "the tokenizer's own, or data.chat_template=FILE", "data.chat_template")


def _source(of: dict[str, Any]) -> dict[str, Any]:
    files = of.get("data_files")
    path = files if isinstance(files, str) else files[0] if files else of["path"]
    source = {"path": str(path)}
    if of.get("split") and not files:
        source["split"] = str(of["split"])
    if of.get("name"):
        source["name"] = str(of["name"])
    return source


_FOLDER = "read from the model's folder"
_PACKED = "rows are packed here and never see each other; a step counts rows, not packed rows"
_TRACKER = "tracker=NAME; metrics.jsonl is always written"

WITHOUT_EFFECT = {
    **dict.fromkeys(("model_type", "tokenizer_type", "is_llama_derived_model", "strict"), _FOLDER),
    **dict.fromkeys(("is_mistral_derived_model", "is_qwen_derived_model", "lora_fan_in_fan_out"), _FOLDER),
    **dict.fromkeys(("flash_attention", "sdp_attention", "xformers_attention"), trainer.ON_ONE_MACHINE),
    **dict.fromkeys(("eager_attention", "flex_attention"), trainer.ON_ONE_MACHINE),
    **dict.fromkeys(("sample_packing", "eval_sample_packing", "pad_to_sequence_len", "batch_flattening"), _PACKED),
    **dict.fromkeys(("wandb_project", "wandb_entity", "wandb_watch", "wandb_name", "wandb_log_model"), _TRACKER),
    "use_tensorboard": _TRACKER,
    **dict.fromkeys(("dataset_prepared_path", "dataset_processes", "local_rank"), trainer.ON_ONE_MACHINE),
    "auto_resume_from_checkpoints": "the same command goes on",
    "train_on_inputs": "false is so here",
    "save_only_model": "a checkpoint holds what going on needs",
    "chat_template": "the tokenizer's own",
    "eval_batch_size": trainer.CHOSEN_HERE,
    "tokenizer_default": "the tokenizer's own",
    "debug": "logging",
    "tokenizer_use_fast": "always so here",
}
NO_EQUIVALENT = {
    "batch_size": "micro_batch_size x gradient_accumulation_steps is read",
    "special_tokens": "the tokenizer's own; save a tokenizer with others and name it: model.tokenizer=FOLDER",
    "tokens": "the vocabulary is not enlarged",
    "lora_modules_to_save": "only adapters are trained under LoRA",
    "lora_model_dir": "merge them first: prefopt export ADAPTERS out=FOLDER",
    "peft_use_dora": "plain LoRA alone",
    "peft_use_rslora": "the scale is alpha / r; alpha * sqrt(r) gives the same",
    "rpo_alpha": "loss=mix: dpo and sft",
    "dpo_use_weighting": "loss=wpo",
    "early_stopping_patience": "train.early_stop_patience with train.best_metric",
    "cosine_min_lr_ratio": "cosine goes to 0",
    "max_prompt_len": "data.max_prompt_length cuts every prompt, axolotl's is for RL",
    "unfrozen_parameters": "all weights or LoRA",
    "plugins": "code of others is not run",
    "train_on_inputs": "only responses are trained on",
    "dpo_label_smoothing": "of rl: dpo alone",
    "simpo_gamma": "of rl: simpo alone",
    "cpo_alpha": "of rl: simpo alone",
    "float16": "model.dtype is float32 or bfloat16",
    "default_system_message": "no message is put into a conversation here",
    "sequence_parallel_degree": "a row is on one device",
}
"""Keys of axolotl's own."""
