"""What stands in for the models and data of packaged recipes: a tiny model of the same family, and fitting rows."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tiny import make_model

from prefopt.config import compose
from prefopt.losses import make_loss
from prefopt.plan.published import MODELS
from prefopt.recipe_files import choices, search_path

RECIPES = sorted(
    name for name in choices("recipe", search_path()) if not name.startswith("sweep/") and name != "quickstart"
)

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
OF_A_FAMILY: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


def family_of(recipe: str) -> str:
    """transformers' name of the family of a recipe's model."""
    return str(MODELS[compose([f"recipe={recipe}"]).model.path]["model_type"])


def make_stand_in(folder: Path, family: str) -> Path:
    """A random model of the family with the tokenizer of `tiny.make_model`, saved in `folder`; made once."""
    if (folder / "config.json").exists():
        return folder
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    make_model(folder)
    vocabulary = len(AutoTokenizer.from_pretrained(folder))
    torch.manual_seed(0)
    sizes = {**SIZES, **OF_A_FAMILY.get(family, {}), "vocab_size": vocabulary}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).save_pretrained(folder)
    return folder


def make_rows(file: Path, needs: frozenset[str]) -> Path:
    """40 rows: rankings with scores in [0, 1] where the method asks for scores, else pairs."""
    words = random.Random(0)
    with open(file, "w", encoding="utf-8") as out:
        for number in range(40):
            prompt = f"{number}: " + "ask " * words.randint(1, 12)
            good, bad = "yes " * words.randint(1, 10), "no " * words.randint(1, 14)
            row: dict[str, Any] = {"prompt": prompt, "chosen": good, "rejected": bad}
            if needs & {"ranking", "probabilities"}:
                row = {"prompt": prompt, "responses": [good, "well " * 3, bad], "scores": [0.9, 0.5, 0.1]}
            out.write(json.dumps(row) + "\n")
    return file


def stand_in_words(recipe: str, place: Path) -> list[str]:
    """The recipe on a tiny model of its family: all else that can stay on a CPU and in a minute stays as it is."""
    run = compose([f"recipe={recipe}"])
    model = make_stand_in(place / family_of(recipe), family_of(recipe))
    rows = make_rows(place / f"{recipe}.jsonl", make_loss(run.loss).needs)
    words = [
        f"recipe={recipe}",
        f"model.path={model}",
        "model.tokenizer=null",
        "model.revision=null",
        f"data.train=[{{path: {rows}}}]",
        "data.eval={}",
        "data.eval_size=8",
        "data.chat_template=null",
        "data.max_length=320",
        "data.max_prompt_length=100",
        "data.num_workers=1",
        "train.batch_size=4",
        "train.max_steps=2",
        "train.tokens_per_micro_batch=700",
        "train.save_every=never",
        "deepspeed=none",
        "fsdp=none",
        "launch.device=cpu",
        "launch.num_processes=1",
    ]
    if run.model.base != "plain":
        words.append("model.lora.base=plain")  # 4 bits need a GPU
    if any(margin.path for margin in run.data.margins):
        margin = f"{{kind: implicit, path: {model}, beta: 0.1}}"
        words.append(f"data.margins=[{', '.join(margin for _ in run.data.margins)}]")
    return words
