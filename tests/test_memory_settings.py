"""Settings that save memory are refused, in a sentence, where they have no effect or cannot be had."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from prefopt.checks import check
from prefopt.config import compose
from prefopt.errors import UserError
from prefopt.memory_check import check_device

QUICKSTART = "recipe=quickstart"
HAS_BITSANDBYTES = find_spec("bitsandbytes") is not None


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as error:
        check(compose([QUICKSTART, *overrides]))
    return str(error.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.checkpoint_every=0"], "model.checkpoint_every must be 1 or more"),
        (["optim=adafactor", "optim.betas=[0.8,0.9]"], "optim.betas=[0.8, 0.9] has no effect: adafactor takes none"),
        (["optim=adafactor", "optim.eps=1e-6"], "optim.eps=1e-06 has no effect"),
        (["optim=rmsprop", "optim.weight_decay=0.1"], "optim.weight_decay=0.1 has no effect"),
        (["optim=adafactor", "deepspeed=zero2"], "do not go together"),
        (["model.offload_activations=true"], "model.checkpoint_every is null"),
        (["model.lora.base=nf4", "deepspeed=zero3"], "do not go together"),
        (["loss=dpo", "model.lora.base=nf4", "model.reference=other/model"], "the model with its adapters off"),
        (["optim.bfloat16_weights=nearest"], "has no effect: model.dtype is float32"),
        (["model.dtype=bfloat16", "model.lora.r=4", "optim.bfloat16_weights=stochastic"], "are float32"),
        (["model.dtype=bfloat16", "deepspeed=zero2", "optim.bfloat16_weights=stochastic"], "DeepSpeed keeps float32"),
    ],
)
def test_what_has_no_effect_or_does_not_go_together(overrides: list[str], said: str) -> None:
    assert said in refusal(*overrides)


OF_BITSANDBYTES = ["optim=adamw_8bit", "optim=paged_adamw_8bit", "model.lora.base=nf4", "model.lora.base=int8"]


@pytest.mark.parametrize("override", OF_BITSANDBYTES)
@pytest.mark.skipif(HAS_BITSANDBYTES, reason="bitsandbytes is installed")
def test_bitsandbytes_is_asked_for_by_name(override: str) -> None:
    assert "needs bitsandbytes, which is not installed" in refusal(override)


@pytest.mark.parametrize("override", OF_BITSANDBYTES)
def test_what_needs_a_gpu_is_refused_on_the_cpu(override: str) -> None:
    run = compose([QUICKSTART, override])
    check_device(run, "cuda")
    with pytest.raises(UserError, match="needs a GPU"):
        check_device(run, "cpu")


@pytest.mark.parametrize("name", ["adamw", "adafactor", "rmsprop"])
def test_torchs_optimisers_run_anywhere(name: str) -> None:
    run = compose([QUICKSTART, f"optim={name}"])
    check(run)
    check_device(run, "cpu")


def test_offloading_is_refused_on_the_cpu() -> None:
    run = compose([QUICKSTART, "model.checkpoint_every=1", "model.offload_activations=true"])
    check(run)
    with pytest.raises(UserError, match="has no effect on the CPU"):
        check_device(run, "cpu")
