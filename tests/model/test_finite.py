"""Weights and adapters with numbers that are not finite are refused by the names of file and tensor."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import make_model

from prefopt.errors import UserError
from prefopt.model.adapters import load_merged
from prefopt.model.load import load_policy, load_reward_policy
from prefopt.settings import LoraSettings, ModelSettings

NAME = "model.layers.1.mlp.up_proj.weight"


def harm(file: Path, name: str, number: float) -> None:
    """One number in the middle of a tensor."""
    tensors = load_file(file)
    flat = tensors[name].flatten()
    flat[flat.numel() // 2] = number
    tensors[name] = flat.view(tensors[name].shape)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_weight(number: float, dtype: str, model: Path) -> None:
    harm(model / "model.safetensors", NAME, number)
    settings = ModelSettings(path=str(model), dtype=dtype)
    for load in (load_policy, load_reward_policy):
        with pytest.raises(UserError) as caught:
            load(settings, longest=64)
        said = caught.value.message
        assert said == f"{model / 'model.safetensors'}: 1 of the 2048 numbers of {NAME} are not finite"


def test_a_weight_that_only_the_precision_of_the_run_cannot_hold(model: Path) -> None:
    harm(model / "model.safetensors", NAME, 3.4e38)  # float32's largest is 3.403e38, bfloat16's 3.39e38
    load_policy(ModelSettings(path=str(model)), longest=64)
    with pytest.raises(UserError, match=f"{NAME} has numbers that are not finite as bfloat16"):
        load_policy(ModelSettings(path=str(model), dtype="bfloat16"), longest=64)


def test_large_weights_whose_sum_overflows_are_finite(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors[NAME] = torch.full_like(tensors[NAME], 3e38)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    load_policy(ModelSettings(path=str(model)), longest=64)


def test_adapters(model: Path, tmp_path: Path) -> None:
    settings = ModelSettings(path=str(model), lora=LoraSettings(r=2))
    trained = load_policy(settings, longest=64)
    folder = tmp_path / "adapters"
    trained.model.save_pretrained(str(folder))
    assert load_merged(settings, folder, longest=64)
    file = folder / "adapter_model.safetensors"
    name = next(n for n in load_file(file) if "lora_A" in n)
    harm(file, name, math.nan)
    with pytest.raises(UserError) as caught:
        load_merged(settings, folder, longest=64)
    assert f"{file}: 1 of the " in caught.value.message
    assert name in caught.value.message


def test_a_shard_of_several_files_is_named(model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = shutil.copytree(model, tmp_path / "shards")
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(folder, max_shard_size="40KB")
    files = [f for f in sorted(folder.glob("*.safetensors")) if NAME in load_file(f)]
    assert len(list(folder.glob("*.safetensors"))) > 1
    harm(files[0], NAME, math.nan)
    with pytest.raises(UserError, match=files[0].name):
        load_policy(ModelSettings(path=str(folder)), longest=64)
