"""LoRA, quantised weights and precision, which every peer spells in its own way and means alike."""

from __future__ import annotations

from typing import Any

from prefopt.peers.taking import Kind, Line, Taking, shown
from prefopt.peers.trainer import as_number

BF16_UPDATES = (
    "float32 copies of the weights take the updates here; where the peer updates bfloat16 weights themselves most of a"
    " small update is lost (optim.bfloat16_weights=nearest does the same)"
)


def take_lora(
    t: Taking, rank: str, alpha: str, dropout: str, modules: Any, base: str, usual: tuple[int, float | None, float]
) -> None:
    """`model.lora`. rank, alpha, dropout: the peer's keys. modules: target modules, as ours. usual: the peer's rank,
    alpha (None: twice the rank) and dropout. The scale is alpha / rank everywhere."""
    r = int(t.get(rank, usual[0]))
    scale = as_number(t.get(alpha, 2 * r if usual[1] is None else usual[1]))
    drop = as_number(t.get(dropout, usual[2]))
    lora = {"r": r, "alpha": scale, "dropout": drop, "target_modules": modules, "base": base}
    t.set("model.lora", lora, f"from {rank}, {alpha}, {dropout}; what the file leaves out is the peer's default")
    if drop:
        t.note(Kind.OTHER, dropout, "the one dropout that stays on: masks are other random numbers", "model.lora")
    for key, ours in ((rank, "r"), (alpha, "alpha"), (dropout, "dropout")):
        t.note(Kind.TAKEN, key, to="model.lora")
        if t.get(key) is None:
            t.lines.append(Line(Kind.DEFAULT, key, "", f"model.lora.{ours}={shown(lora[ours])}"))


def names(value: Any) -> list[str] | str:
    """Target modules: a list, or `all-linear` for every way to say all of them."""
    found = [part.strip() for part in value.split(",")] if isinstance(value, str) else [str(part) for part in value]
    return "all-linear" if found in (["all"], ["all-linear"]) else found


def take_bf16(t: Taking, key: str) -> None:
    """A peer's `bf16: true`, which loads weights in bfloat16."""
    if t.get(key):
        t.take(key, "model.dtype", "bfloat16", BF16_UPDATES)
    else:
        t.note(Kind.WITHOUT, key, "off: float32")


def take_engine(t: Taking) -> None:
    """The engine by the name of DeepSpeed's file, or FSDP's own word."""
    said = t.get("deepspeed")
    if isinstance(said, str) and said:
        name = said.lower().replace("_", "").replace("-", "")
        stage = next((n for n in "3210" if f"zero{n}" in name or f"z{n}" in name or f"stage{n}" in name), None)
        offload = "_offload" if "offload" in name and stage in ("2", "3") else ""
        if stage is not None:
            t.choose(
                "deepspeed", "deepspeed", f"zero{stage}{offload}", "by the file's name; its other keys are not read"
            )
    elif isinstance(said, dict):
        stage = (said.get("zero_optimization") or {}).get("stage")
        if stage in (0, 1, 2, 3):
            t.choose("deepspeed", "deepspeed", f"zero{stage}", "its stage; its other keys are not read")
    if t.get("fsdp") and "full_shard" in str(t.get("fsdp")) and "deepspeed" not in t.groups:
        t.choose("fsdp", "fsdp", "full_shard", "FSDP2; its wrapping policy is the model's own layers")
        t.note(Kind.WITHOUT, "fsdp_config", "layers that transformers names are split")
