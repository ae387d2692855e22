"""What an engine cannot do is refused in one sentence, before anything is loaded."""

from __future__ import annotations

import pytest

from prefopt.checks import check
from prefopt.config import compose
from prefopt.errors import UserError
from prefopt.memory_check import check_device

QUICKSTART = "recipe=quickstart"
ZERO = "deepspeed.config.zero_optimization"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fsdp=full_shard", "deepspeed=zero2"], "are two engines"),
        (["fsdp.reshard_after_forward=false"], "fsdp.reshard_after_forward=false has no effect without FSDP"),
        (["fsdp.cpu_offload=true"], "fsdp.cpu_offload=true has no effect without FSDP"),
        (["fsdp=full_shard", "train.tokens_per_micro_batch=auto"], "that FSDP keeps"),
        (["deepspeed=zero2", "train.tokens_per_micro_batch=auto"], "that DeepSpeed keeps"),
        (["fsdp=full_shard", "optim=adafactor"], "fsdp.strategy do not go together"),
        (["fsdp=full_shard", "model.lora.base=nf4"], "fsdp.strategy do not go together"),
        (["fsdp=full_shard", "model.dtype=bfloat16", "optim.bfloat16_weights=nearest"], "the shards are float32"),
        (["deepspeed=zero0", "model.dtype=bfloat16"], "ZeRO-0 keeps no float32 weights"),
        (["deepspeed=zero0", "train.autocast=bf16"], "ZeRO-0 keeps no float32 weights"),
        (["deepspeed=zero3", "train.autocast=bf16"], "no effect under ZeRO-3"),
        (["deepspeed=zero2", f"{ZERO}.stage=4"], "must be 0, 1, 2 or 3, not 4"),
        (["deepspeed=zero0", f"{ZERO}.offload_optimizer={{device: cpu}}"], "no effect at stage 0"),
        (["deepspeed=zero2", f"{ZERO}.offload_param={{device: cpu}}"], "no effect at stage 2"),
        (["deepspeed=zero3", f"{ZERO}.offload_param={{device: nvme}}"], "cannot be saved"),
        (["deepspeed=zero2", f"{ZERO}.compute_grad_norm=false"], "judged by their norm"),
        (["deepspeed=zero2", "deepspeed.config.fp16={enabled: true}"], "deepspeed.config.fp16 is set by prefopt"),
        (["deepspeed=zero2", "deepspeed.config.torch_autocast={enabled: true, dtype: fp16}"], "is set by prefopt"),
        (["deepspeed=zero0", "train.on_nonfinite=skip_step"], "tells the gradient's norm after its update"),
        (["deepspeed=zero3", "train.on_nonfinite=skip_step"], "tells the gradient's norm after its update"),
        (["deepspeed=zero2", "deepspeed.config.zero_force_ds_cpu_optimizer=true"], "is set by prefopt"),
    ],
)
def test_refused_in_one_sentence(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        check(compose([QUICKSTART, *words]))
    assert said in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_offload_under_fsdp_has_no_effect_on_the_cpu() -> None:
    run = compose([QUICKSTART, "fsdp=full_shard", "fsdp.cpu_offload=true"])
    check(run)
    check_device(run, "cuda")
    with pytest.raises(UserError, match="has no effect on the CPU"):
        check_device(run, "cpu")


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("deepspeed=none", "DDP"),
        ("deepspeed=zero0", "DeepSpeed ZeRO-0"),
        ("deepspeed=zero2_offload", "DeepSpeed ZeRO-2 with optimizer on the CPU"),
        ("deepspeed=zero3_offload", "DeepSpeed ZeRO-3 with optimizer on the CPU and param on the CPU"),
        ("fsdp=full_shard", "FSDP2"),
    ],
)
def test_an_engine_has_a_name(word: str, name: str) -> None:
    run = compose([QUICKSTART, word])
    check(run)
    assert run.engine == name
