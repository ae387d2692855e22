"""Which engine runs, and what goes together with it. Imports nothing heavy."""

from __future__ import annotations

from prefopt.engine_settings import FsdpSettings
from prefopt.errors import UserError
from prefopt.needs import LIVE
from prefopt.settings import RunSettings

OWNED_BY_PREFOPT = {
    "train_batch_size": "train.batch_size",
    "train_micro_batch_size_per_gpu": "train.tokens_per_micro_batch",
    "gradient_accumulation_steps": "train.tokens_per_micro_batch",
    "gradient_clipping": "optim.max_grad_norm",
    "optimizer": "optim.name and its settings",
    "scheduler": "optim.schedule and optim.warmup_ratio",
    "bf16": "model.dtype=bfloat16 or train.autocast=bf16",
    "fp16": "model.dtype=bfloat16 or train.autocast=bf16",
    "torch_autocast": "train.autocast=bf16",
    "zero_force_ds_cpu_optimizer": "optim.name: an optimiser that is offloaded stays the one named there",
    "zero_allow_untested_optimizer": "optim.name",
}
"""Keys of DeepSpeed's configuration that would say again, or against, what a key of prefopt says."""


def check_engine(run: RunSettings, needs: frozenset[str]) -> None:
    """Refuse what an engine cannot do, and keys of it that have no effect.

    Raises: UserError naming the key.
    """
    if run.fsdp.is_on and run.deepspeed.config is not None:
        raise UserError(
            f"fsdp={run.fsdp.strategy} and deepspeed.config are two engines, and a run has one", "leave one of them out"
        )
    _check_budget(run)
    _check_deepspeed(run, needs)
    _check_fsdp(run)


def _check_budget(run: RunSettings) -> None:
    if run.train.tokens_per_micro_batch != "auto":
        return
    if run.deepspeed.config is None and not run.fsdp.is_on:
        return
    name, group = ("FSDP", "fsdp") if run.fsdp.is_on else ("DeepSpeed", "deepspeed")
    raise UserError(
        f"train.tokens_per_micro_batch=auto: gradients and states that {name} keeps cannot be tried and put back",
        f"state a number, 8192 for instance, or take {group}=none",
    )


def _check_deepspeed(run: RunSettings, needs: frozenset[str]) -> None:
    config, stage = run.deepspeed.config, run.deepspeed.stage
    if config is None:
        return
    if needs & LIVE and stage == 3 and run.model.lora is None:
        raise UserError(
            f"loss={run.loss['name']} compares whole distributions with a frozen copy of the model, which ZeRO-3 cannot"
            " shard beside the policy yet",
            "deepspeed=zero2, or model.lora={r: 16}, which needs no copy",
        )
    for key, instead in OWNED_BY_PREFOPT.items():
        if key in config:
            raise UserError(f"deepspeed.config.{key} is set by prefopt", f"say it once, by {instead}")
    if run.train.on_nonfinite != "stop":
        raise UserError(
            f"train.on_nonfinite={run.train.on_nonfinite} and deepspeed.config do not go together: DeepSpeed tells the"
            " gradient's norm after its update, which cannot be taken back",
            "deepspeed=none or fsdp=full_shard, or train.on_nonfinite=stop",
        )
    where = "deepspeed.config.zero_optimization"
    if stage not in (0, 1, 2, 3):
        raise UserError(f"{where}.stage must be 0, 1, 2 or 3, not {stage}", "deepspeed=zero2")
    if stage == 0 and "bf" in f"{run.model.dtype} {run.train.autocast}":
        raise UserError(
            "ZeRO-0 keeps no float32 weights beside bfloat16 ones, so that small updates would be lost",
            "deepspeed=zero1, or deepspeed=none, where optim.bfloat16_weights says how they are kept",
        )
    if stage == 3 and run.train.autocast == "bf16" and run.model.dtype == "float32":
        raise UserError(
            "train.autocast=bf16 has no effect under ZeRO-3, which computes in what the weights are held in",
            "model.dtype=bfloat16, of which DeepSpeed keeps float32 masters",
        )
    for what, needed in (("optimizer", 1), ("param", 3)):
        if run.deepspeed.offload_device(what) == "nvme":
            raise UserError(f"{where}.offload_{what}.device=nvme: what is on a disk cannot be saved", "device: cpu")
        if run.deepspeed.offload_device(what) != "none" and stage < needed:
            raise UserError(f"{where}.offload_{what} has no effect at stage {stage}", f"stage: {needed}, or more")
    if run.deepspeed.zero.get("compute_grad_norm") is False:
        raise UserError(f"{where}.compute_grad_norm=false: steps are judged by their norm", "leave it out")


def _check_fsdp(run: RunSettings) -> None:
    usual = FsdpSettings()
    if run.fsdp.is_on:
        return
    for key in ("reshard_after_forward", "cpu_offload"):
        value = getattr(run.fsdp, key)
        if value != getattr(usual, key):
            raise UserError(f"fsdp.{key}={str(value).lower()} has no effect without FSDP", "fsdp=full_shard")
