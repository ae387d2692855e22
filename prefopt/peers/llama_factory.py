"""LLaMA-Factory: YAML files of `llamafactory-cli train` (`src/llamafactory/hparams/`)."""

from __future__ import annotations

from pathlib import Path

from prefopt.errors import UserError
from prefopt.peers import trainer
from prefopt.peers.adapters import names, take_bf16, take_engine, take_lora
from prefopt.peers.llama_factory_data import take_sources
from prefopt.peers.taking import Kind, Taking
from prefopt.peers.trainer import Defaults, Keys, as_number, take_rhythm, take_trainer
from prefopt.peers.trl_methods import take_gamma

MARKS = frozenset({"stage", "finetuning_type", "cutoff_len", "pref_loss", "pref_beta", "lora_rank", "dataset_dir"})

PAIRS = {"sigmoid": "dpo", "hinge": "dpo_hinge", "ipo": "ipo", "orpo": "orpo", "simpo": "simpo"}
"""pref_loss to method."""


def take(t: Taking, file: Path) -> None:
    """Everything of such a file.

    Raises: UserError where the stage or the method has no equivalent.
    """
    stage = str(t.get("stage", "sft"))
    if stage == "dpo":
        _pairs(t)
    elif stage == "kto":
        t.groups["loss"] = "kto"
        _beta(t)
        for key, ours in (("kto_chosen_weight", "desirable_weight"), ("kto_rejected_weight", "undesirable_weight")):
            if t.get(key) is not None:
                t.take(key, f"loss.{ours}", as_number(t.get(key)))
    elif stage in ("sft", "rm"):
        t.groups["loss"] = "sft" if stage == "sft" else "reward_bt"
    else:
        raise UserError(f"{file}: stage: {stage} has no equivalent in prefopt", "dpo, kto, sft and rm have")
    t.note(Kind.TAKEN, "stage", to=f"loss={t.groups['loss']}")
    _model(t)
    take_trainer(t, Keys(), Defaults(5e-5))
    take_rhythm(t)
    _data(t, file)
    take_engine(t)
    t.close({**trainer.NO_EQUIVALENT, **NO_EQUIVALENT}, {**trainer.WITHOUT_EFFECT, **WITHOUT_EFFECT})


def _beta(t: Taking, to: str = "loss.beta", said: str = "") -> float:
    beta = as_number(t.get("pref_beta", 0.1))
    if t.get("pref_beta") is None:
        t.assume("pref_beta", to, beta)
    else:
        t.take("pref_beta", to, beta, said)
    return beta


def _pairs(t: Taking) -> None:
    kind = str(t.get("pref_loss", "sigmoid"))
    if kind not in PAIRS:
        raise UserError(f"pref_loss: {kind!r} has no equivalent among prefopt's methods", "prefopt losses lists them")
    method = PAIRS[kind]
    smoothing, imitation = as_number(t.get("dpo_label_smoothing", 0)), as_number(t.get("pref_ftx", 0))
    if method == "dpo" and smoothing:
        method = "cdpo"
        t.take("dpo_label_smoothing", "loss.label_smoothing", smoothing)
    if method == "dpo" and t.get("ld_alpha") is not None:
        method = "ld_dpo"
        t.take("ld_alpha", "loss.ld_alpha", as_number(t.get("ld_alpha")))
    said = ""
    if method == "orpo":
        said = (
            "its NLL is the mean over responses of means over tokens; here it is the mean over all tokens of the step"
        )
        t.set("loss.nll_over", "response", "LLaMA-Factory's NLL leaves the prompt out, as the paper's equation")
    if method == "ipo":
        said = "log-ratios per token, as LLaMA-Factory"
        t.set("loss.normalisation", "mean", "from pref_loss: ipo")
    t.groups["loss"] = method
    t.note(Kind.OTHER if said else Kind.TAKEN, "pref_loss", said, f"loss={method}")
    beta = _beta(t, "loss.lam", "the weight of the odds-ratio term") if method == "orpo" else _beta(t)
    if method == "simpo":
        take_gamma(t, "simpo_gamma", beta, 0.5)
    t.note(Kind.WITHOUT, "simpo_gamma", "of pref_loss simpo alone")
    t.note(Kind.WITHOUT, "dpo_label_smoothing", f"{smoothing:g}; not of loss={method}")
    if imitation:
        _imitate(t, method, imitation)


def _imitate(t: Taking, method: str, weight: float) -> None:
    """pref_ftx: an NLL of the chosen response, which makes it a mixture. Its mean is over responses of means."""
    settings = {key.removeprefix("loss."): t.settings.pop(key) for key in list(t.settings) if key.startswith("loss.")}
    parts = [{"name": method, **settings}, {"name": "sft", "weight": weight, "reduction": "sequence_mean"}]
    t.groups["loss"] = "mix"
    t.take("pref_ftx", "loss.parts", parts, "a second part of loss=mix: the NLL of the chosen response")


def _model(t: Taking) -> None:
    if t.get("model_name_or_path") is not None:
        t.take("model_name_or_path", "model.path", str(t.get("model_name_or_path")))
    if t.get("ref_model") is not None:
        t.take("ref_model", "model.reference", str(t.get("ref_model")))
    take_bf16(t, "bf16")
    kind = str(t.get("finetuning_type", "lora"))
    if kind == "lora":
        bits = t.get("quantization_bit")
        base = {4: "nf4", 8: "int8"}.get(bits, "plain")
        take_lora(
            t, "lora_rank", "lora_alpha", "lora_dropout", names(t.get("lora_target", "all")), base, (8, None, 0.0)
        )
        t.note(Kind.TAKEN, "lora_target", to="model.lora")
        t.note(Kind.TAKEN if base != "plain" else Kind.NONE, "quantization_bit", "4 or 8", f"model.lora.base={base}")
        t.note(Kind.TAKEN, "finetuning_type", to="model.lora")
    elif kind == "full":
        t.note(Kind.TAKEN, "finetuning_type", to="model.lora=null")
        for key in t.unread:
            if key.startswith("lora_"):
                t.note(Kind.WITHOUT, key, "finetuning_type: full")
    else:
        t.note(Kind.NONE, "finetuning_type", "all weights or LoRA; all weights are trained")
    if t.get("pure_bf16"):
        t.take("pure_bf16", "model.dtype", "bfloat16")
        t.set("optim.bfloat16_weights", "nearest", "from pure_bf16: weights are updated in bfloat16")


def _data(t: Taking, file: Path) -> None:
    if t.get("cutoff_len") is None:
        t.assume("cutoff_len", "data.max_length", 2048)
    else:
        t.set("data.max_length", int(t.get("cutoff_len")), "from cutoff_len")
    t.set(
        "data.too_long",
        "truncate_prompt",
        "LLaMA-Factory cuts prompt and response in proportion; here the prompt's beginning goes",
    )
    t.note(
        Kind.OTHER,
        "cutoff_len",
        "a row that is too long loses the prompt's beginning here; LLaMA-Factory cuts the end of the prompt, the"
        " assistant's header with it, and of the response",
        "data.max_length",
    )
    take_sources(t, file)
    if t.get("val_size"):
        t.take("val_size", "data.eval_size", as_number(t.get("val_size")))
    if t.get("eval_dataset"):
        t.note(Kind.NONE, "eval_dataset", "data.eval={heldout: {path: FILE}}")
    t.note(
        Kind.OTHER, "template", "the tokenizer's own chat template, or data.chat_template=FILE", "data.chat_template"
    )


WITHOUT_EFFECT = {
    "overwrite_cache": "a cache is known by its content",
    "plot_loss": "prefopt report",
    "dataset_dir": "paths are written into the recipe",
    "flash_attn": trainer.ON_ONE_MACHINE,
    "enable_liger_kernel": trainer.ON_ONE_MACHINE,
    "use_unsloth": trainer.ON_ONE_MACHINE,
    "packing": "rows are packed here and never see each other; a step counts rows, not packed rows",
    "neat_packing": "always so here",
    "train_on_prompt": "false is so here",
    "cache_dir": "HF_HOME=FOLDER",
    "include_num_input_tokens_seen": "always so here",
}
NO_EQUIVALENT = {
    "pref_bco_weight": "loss=bco_pair, or loss=mix with it",
    "train_on_prompt": "only responses are trained on",
    "mask_history": "only the last assistant turn is trained on",
    "loraplus_lr_ratio": "one learning rate",
    "use_rslora": "the scale is alpha / r; alpha * sqrt(r) gives the same",
    "use_dora": "plain LoRA alone",
    "pissa_init": "plain LoRA alone",
    "additional_target": "only adapters are trained under LoRA",
    "use_galore": "there are adamw, adamw_8bit, paged_adamw_8bit, adafactor and rmsprop",
    "use_badam": "there are adamw, adamw_8bit, paged_adamw_8bit, adafactor and rmsprop",
    "freeze_trainable_layers": "all weights or LoRA",
    "adapter_name_or_path": "merge them first: prefopt export ADAPTERS out=FOLDER",
    "reward_model": "of PPO",
    "mix_strategy": "weight of each source: data.train=[{path: FILE, weight: W}]",
    "interleave_probs": "weight of each source: data.train=[{path: FILE, weight: W}]",
    "ref_model_adapters": "merge them first: prefopt export ADAPTERS out=FOLDER",
    "quantization_bit": "4 and 8 with LoRA",
}
"""Keys of LLaMA-Factory's own."""
