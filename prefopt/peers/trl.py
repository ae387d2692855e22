"""TRL: YAML files of its command line and of the alignment-handbook, and of SimPO's repository, which grew from both.

Defaults are those of TRL 1.16 (`trl/trainer/*_config.py`, `trl/experimental/*/`); what
older versions have otherwise is said.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefopt.errors import UserError, did_you_mean
from prefopt.peers import trainer
from prefopt.peers.adapters import BF16_UPDATES, names, take_engine, take_lora
from prefopt.peers.taking import Kind, Line, Taking, shown
from prefopt.peers.trainer import Defaults, Keys, as_number, take_rhythm, take_trainer
from prefopt.peers.trl_methods import METHODS

MARKS = frozenset({"model_name_or_path", "dataset_name", "dataset_mixer", "dataset_mixture", "loss_type", "use_peft"})
"""Keys by which such a file is known, where no other peer's mark is there."""

RATES = {"dpo": 1e-6, "cpo": 1e-6, "simpo": 5e-5, "orpo": 1e-6, "kto": 1e-6, "sft": 2e-5, "reward": 1e-4}
"""Trainer to the default of learning_rate."""

CLUES = (
    ("gamma_beta_ratio", "simpo"),
    ("cpo_alpha", "cpo"),
    ("simpo_gamma", "cpo"),
    ("desirable_weight", "kto"),
    ("undesirable_weight", "kto"),
    ("center_rewards_coefficient", "reward"),
    ("f_divergence_type", "dpo"),
    ("precompute_ref_log_probs", "dpo"),
    ("rpo_alpha", "dpo"),
    ("completion_only_loss", "sft"),
    ("assistant_only_loss", "sft"),
    ("packing", "sft"),
    ("dataset_text_field", "sft"),
)
"""A key, and the one trainer that has it: the file itself does not name its script."""


def take(t: Taking, file: Path) -> None:
    """Everything of such a file.

    Raises: UserError where the trainer cannot be told, or a value that decides the method has no equivalent.
    """
    which = _trainer(t, file)
    METHODS[which](t)
    _model(t)
    take_trainer(t, Keys(), Defaults(RATES[which]))
    take_rhythm(t)
    _lengths(t)
    _data(t)
    take_engine(t)
    t.close(
        {**trainer.NO_EQUIVALENT, **NO_EQUIVALENT},
        {**trainer.WITHOUT_EFFECT, **WITHOUT_EFFECT},
    )


def _trainer(t: Taking, file: Path) -> str:
    if t.options.trainer is not None:
        if t.options.trainer not in RATES:
            raise UserError(f"trainer={t.options.trainer}: there is none", did_you_mean(t.options.trainer, RATES))
        return t.options.trainer
    for key, which in CLUES:
        if t.get(key) is not None:
            return which
    words = f"{file} {t.get('run_name', '')} {t.get('output_dir', '')} {t.get('hub_model_id', '')}".lower()
    found = [which for which in RATES if which in words]
    if len(found) > 1 and "sft" in found:  # `zephyr-7b-sft-full` is what many a DPO run starts from
        found.remove("sft")
    if len(found) != 1:
        raise UserError(
            f"{file}: the file does not say which of TRL's trainers it is for", f"trainer={'|'.join(RATES)}"
        )
    return found[0]


def _model(t: Taking) -> None:
    if t.get("model_name_or_path") is not None:
        t.take("model_name_or_path", "model.path", str(t.get("model_name_or_path")))
    if t.get("model_revision", "main") != "main":
        t.take("model_revision", "model.revision", str(t.get("model_revision")))
    t.note(Kind.WITHOUT, "model_revision", "main")
    if t.get("ref_model_name_or_path") is not None:
        t.take("ref_model_name_or_path", "model.reference", str(t.get("ref_model_name_or_path")))
    key = t.first("dtype", "torch_dtype")
    dtype = t.get(key)
    if dtype == "bfloat16":
        t.take(key, "model.dtype", "bfloat16", BF16_UPDATES)
    elif dtype == "auto":
        t.take(key, "model.dtype", "bfloat16", f"auto is what the files hold, bfloat16 in most; {BF16_UPDATES}")
    elif dtype in (None, "float32"):
        t.note(Kind.TAKEN, key, to="model.dtype=float32")
    else:
        t.note(Kind.NONE, key, "model.dtype is float32 or bfloat16")
    if t.get("bf16") and "model.dtype" not in t.settings:
        t.take("bf16", "train.autocast", "bf16")
    else:
        t.note(Kind.WITHOUT, "bf16", "weights are bfloat16 already" if t.get("bf16") else "off")
    if t.get("use_peft"):
        t.note(Kind.TAKEN, "use_peft", to="model.lora")
        _lora(t)
    else:
        for key in t.unread:
            if key.startswith(("lora_", "use_peft", "load_in_", "bnb_", "use_bnb", "use_dora", "use_rslora")):
                t.note(Kind.WITHOUT, key, "use_peft is not set")


def _lora(t: Taking) -> None:
    base = "nf4" if t.get("load_in_4bit") else "int8" if t.get("load_in_8bit") else "plain"
    modules = t.get("lora_target_modules")
    if modules is None:
        ours: Any = ["q_proj", "v_proj"]
        t.lines.append(_peft_default())
    else:
        ours = names(modules)
        t.note(Kind.TAKEN, "lora_target_modules", to="model.lora")
    take_lora(t, "lora_r", "lora_alpha", "lora_dropout", ours, base, (16, 32.0, 0.05))
    for key in ("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant"):
        t.note(Kind.TAKEN, key, to=f"model.lora.base={base}")


def _peft_default() -> Line:
    said = "peft's own choice for a Llama; other families have other names"
    return Line(Kind.DEFAULT, "lora_target_modules", "", "model.lora.target_modules=[q_proj, v_proj]", said)


def _lengths(t: Taking) -> None:
    key = t.first("max_length", "max_seq_length")
    if t.get(key) is None:
        t.assume("max_length", "data.max_length", 1024)
    else:
        t.take(key, "data.max_length", int(t.get(key)))
    prompt, mode = t.get("max_prompt_length"), t.get("truncation_mode", "keep_start")
    if prompt is not None and int(prompt) < t.settings["data.max_length"]:
        said = "TRL shortens the prompt to it where prompt and response are too long together; here always"
        t.take("max_prompt_length", "data.max_prompt_length", int(prompt), said)
        t.set("data.too_long", "truncate_prompt", "TRL cuts what is too long; the prompt's end is kept")
        cut = "the prompt's end is kept"
    else:
        t.note(Kind.WITHOUT, "max_prompt_length", "not below max_length")
        t.set("data.too_long", "truncate_response", "TRL cuts what is too long at its end")
        cut = "the end of the response is cut; data.too_long=drop leaves such rows out instead"
    to = f"data.too_long={t.settings['data.too_long']}"
    t.note(Kind.OTHER, "truncation_mode", f"{mode}: {cut}", to)
    if t.get("truncation_mode") is None:
        t.lines.append(Line(Kind.DEFAULT, "truncation_mode", "", to, cut))


def _data(t: Taking) -> None:
    train: list[dict[str, Any]] = []
    evaluated: dict[str, Any] = {}
    if (name := t.get("dataset_name")) is not None:
        train.append(_source(name, t.get("dataset_config"), t.get("dataset_train_split", "train")))
        t.note(Kind.TAKEN, "dataset_name", to="data.train")
        t.note(Kind.TAKEN, "dataset_config", to="data.train")
        t.note(Kind.TAKEN, "dataset_train_split", to="data.train")
        if t.get("dataset_test_split") is not None:
            evaluated["heldout"] = _source(name, t.get("dataset_config"), t.get("dataset_test_split"))
            t.note(Kind.TAKEN, "dataset_test_split", to="data.eval.heldout")
    mixer, splits = t.get("dataset_mixer"), t.get("dataset_splits", ["train"])
    for name, share in (mixer or {}).items():
        for split in (s for s in splits if "test" in s or "eval" in s):
            evaluated[f"heldout{len(evaluated) + 1}" if evaluated else "heldout"] = _source(name, None, split)
        train += [
            {**_source(name, None, split), **({"weight": as_number(share)} if as_number(share) != 1 else {})}
            for split in splits
            if "test" not in split and "eval" not in split
        ]
    said = "a share below 1 is a fresh random part in each epoch here, the same part in theirs"
    t.note(Kind.OTHER if any("weight" in s for s in train) else Kind.TAKEN, "dataset_mixer", said, "data.train")
    t.note(Kind.TAKEN, "dataset_splits", to="data.train, data.eval")
    mixture = t.get("dataset_mixture")
    listed = (mixture or {}).get("datasets", []) if isinstance(mixture, dict) else t.get("datasets", [])
    for of in listed:
        path, config = of.get("id") or of.get("path"), of.get("config") or of.get("name")
        if path is None:
            t.lines.append(_odd_source(of))
            continue
        share = as_number(of.get("weight") or of.get("fraction") or 1.0)
        train.append({**_source(path, config, of.get("split", "train")), **({"weight": share} if share != 1 else {})})
    t.note(Kind.TAKEN, "datasets", to="data.train")
    t.note(Kind.OTHER, "dataset_mixture", "columns are recognised by their names; see prefopt data", "data.train")
    if isinstance(mixture, dict) and mixture.get("test_split_size"):
        t.set("data.eval_size", as_number(mixture["test_split_size"]), "from dataset_mixture: test_split_size")
    if train:
        t.set("data.train", train, "from the data sets of the file; their format is recognised, or format: NAME")
    if evaluated:
        t.set("data.eval", evaluated, "from the test splits of the file")


def _odd_source(of: Any) -> Line:
    return Line(Kind.NONE, "datasets", shown(of), "data.train", "files of a loading script: give the path of one")


def _source(path: Any, config: Any, split: Any) -> dict[str, Any]:
    source = {"path": str(path), "split": str(split)}
    return source if config in (None, "default") else {**source, "name": str(config)}


WITHOUT_EFFECT = {
    **dict.fromkeys(("discopop_tau", "f_alpha_divergence_coef", "loss_weights", "alpha"), "of another loss_type"),
    **dict.fromkeys(("simpo_gamma", "cpo_alpha"), "of another loss_type"),
    "lora_task_type": "always causal, or a scalar head for reward models",
    "config": "of the command line",
    "padding_value": "rows are packed",
    "label_pad_token_id": "rows are packed",
    "pad_to_multiple_of": "rows are packed",
    "padding_free": "always so here",
    "pad_token": "rows are packed",
    "is_encoder_decoder": "decoders alone",
    "precompute_ref_batch_size": trainer.CHOSEN_HERE,
    "activation_offloading": "model.offload_activations, with model.checkpoint_every",
    "generate_during_eval": "sample.count=N answers held-out prompts",
    "trainer_type": "loss=NAME",
    "auto_insert_empty_system_msg": "no message is put into a conversation here",
}
NO_EQUIVALENT = {
    "label_smoothing": "this method has none",
    "use_weighting": "loss=wpo alone",
    "f_divergence_type": "loss=f_dpo alone",
    "ld_alpha": "loss=ld_dpo alone",
    "chat_template": "data.chat_template=FILE: a path or a builtin name; the text itself is better in a file",
    "chat_template_path": "data.chat_template=FILE",
    "max_completion_length": "data.max_length alone limits a response",
    "reference_free": "a method without a reference instead: loss=simpo, orpo, cpo",
    "sync_ref_model": "the reference stands still; prefopt rounds goes on from a new one",
    "ref_model_mixup_alpha": "of sync_ref_model",
    "ref_model_sync_steps": "of sync_ref_model",
    "router_aux_loss_coef": "no auxiliary loss of routers",
    "lora_modules_to_save": "only adapters are trained under LoRA",
    "use_rslora": "the scale is alpha / r; alpha * sqrt(r) gives the same",
    "use_dora": "plain LoRA alone",
    "train_sampling_strategy": "KTO's baseline is drawn by a plan of the whole step",
    "eos_token": "data.eos=append takes the tokenizer's own",
    "dataset_streaming": "rows stay on disk and are memory-mapped",
}
"""Keys of TRL's and the handbook's own."""
