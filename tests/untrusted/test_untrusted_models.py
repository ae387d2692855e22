"""Files of somebody else's cannot run code: each bad one leaves a marker where its code ran, and none does.

What is refused is refused in one sentence. YAML, templates and paths are in test_untrusted_texts.py, rows that are
a mess in tests/data/test_data_fuzz.py.
"""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import ROOT, environment
from untrusted_bed import refusal, words_for

from prefopt.data.load import open_source
from prefopt.data.tokenizer import load_tokenizer
from prefopt.errors import UserError
from prefopt.model.files import adapter_folder, model_folder
from prefopt.model.load import load_policy
from prefopt.model.verify import load_as_users_do
from prefopt.model_check import check_safetensors
from prefopt.settings import ModelSettings, SourceSettings
from prefopt.train import checkpoint


class Bomb:
    """Whoever unpickles it makes the file `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (self.marker, "w")


def command(words: list[str], cache: Path, said: str = "") -> subprocess.CompletedProcess[str]:
    """The real command, told yes to whatever it may ask."""
    return subprocess.run(
        [sys.executable, "-m", "prefopt.cli", *words],
        cwd=ROOT,
        env=environment(cache),
        input="y\n" * 20,
        capture_output=True,
        text=True,
        timeout=300,
    )


# Pickles


def test_the_pickle_of_these_tests_does_run_where_it_is_loaded(marker: Path, tmp_path: Path) -> None:
    torch.save({"lm_head.weight": Bomb(marker)}, tmp_path / "a.bin")
    torch.load(tmp_path / "a.bin", weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00001.bin"])
@pytest.mark.parametrize(
    "key", ["model.path", "model.reference", "data.margins.0.path: implicit", "data.margins.0.path: reward"]
)
def test_a_model_of_pickles(
    name: str, key: str, material: tuple[Path, Path], model: Path, marker: Path, tmp_path: Path
) -> None:
    (model / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Bomb(marker)}, model / name)
    kind = key.rpartition(" ")[2]
    margins = ["loss=modpo", "loss.weights=[0.5,0.5]", f"data.margins=[{{kind: {kind}, path: {model}}}]"]
    more = {"model.path": [f"model.path={model}"], "model.reference": ["loss=dpo", f"model.reference={model}"]}
    said = refusal(words_for(material, tmp_path, *more.get(key, margins)))
    assert said.startswith(key.partition(":")[0] + ": ")
    assert "pickled" in said
    assert not marker.exists()


def test_pickles_beside_whole_weights_are_not_opened(model: Path, marker: Path) -> None:
    for name in ("pytorch_model.bin", "adapter_model.bin", "optimizer.pt", "training_args.bin", "rng_state.pth"):
        torch.save({"lm_head.weight": Bomb(marker)}, model / name)
    (model / "scheduler.pkl").write_bytes(pickle.dumps(Bomb(marker)))
    assert load_policy(ModelSettings(str(model)), longest=8).pretrained is not None
    load_as_users_do(str(model), False, "plain", "float32")
    assert not marker.exists()


def test_pickles_beside_weights_of_another_name(model: Path, marker: Path) -> None:
    (model / "model.safetensors").rename(model / "weights.safetensors")
    torch.save({"lm_head.weight": Bomb(marker)}, model / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"model\.path: .* does not load"):
        load_policy(ModelSettings(str(model)), longest=8)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["shard.bin", "../shard.safetensors", "/etc/passwd", ""])
def test_an_index_that_names_something_else(name: str, model: Path, marker: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    torch.save({"lm_head.weight": Bomb(marker)}, model / "shard.bin")
    shutil.copy(model / "model.safetensors", model.parent / "shard.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, name)}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    with pytest.raises(UserError, match="no safetensors file of this folder"):
        model_folder(str(model))
    with pytest.raises(UserError):
        load_policy(ModelSettings(str(model)), longest=8)
    assert not marker.exists()


def make_adapters(folder: Path, base: Path, **config: object) -> Path:
    folder.mkdir()
    stated = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 2, "target_modules": ["q_proj"], **config}
    (folder / "adapter_config.json").write_text(json.dumps(stated))
    return folder


def test_adapters_of_pickles(material: tuple[Path, Path], marker: Path, tmp_path: Path) -> None:
    adapters = make_adapters(tmp_path / "adapters", material[0])
    torch.save({"a": Bomb(marker)}, adapters / "adapter_model.bin")
    modpo = ["loss=modpo", "loss.weights=[0.5,0.5]", f"data.margins=[{{kind: implicit, path: {adapters}}}]"]
    assert "only pickled adapters (adapter_model.bin)" in refusal(words_for(material, tmp_path, *modpo))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"peft_type": "LOHA"}', "'LOHA'"),
        ("[]", "JSON object"),
        ("{", "cannot be read"),
        ('{"peft_type": "LORA"}', "no adapters"),
    ],
)
def test_adapters_that_are_none(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(UserError, match=said):
        adapter_folder(str(tmp_path))


def test_adapters_beside_a_whole_model_are_not_put_on_it(model: Path, marker: Path) -> None:
    torch.save({"a": Bomb(marker)}, model / "adapter_model.bin")
    (model / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "x"}')
    with pytest.raises(UserError, match="which is meant"):
        model_folder(str(model))
    assert not marker.exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "pytorch_model.bin", "state-1.safetensors"])
def test_what_somebody_put_into_a_checkpoint(name: str, marker: Path, tmp_path: Path) -> None:
    def make(step: int) -> Path:
        folder = tmp_path / f"step-{step:08d}"
        folder.mkdir()
        save_file({"a": torch.ones(2)}, folder / "state-0.safetensors")
        checkpoint._seal(folder, checkpoint.Progress(step), {"processes": 1, "device": "cpu", "engine": "DDP"})
        return folder

    older, newer = make(1), make(2)
    assert checkpoint.newest(tmp_path)[0] == newer  # type: ignore[index]
    if name.endswith(".safetensors"):
        save_file({"a": torch.ones(2)}, newer / name)
    else:
        torch.save({"a": Bomb(marker)}, newer / name)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found[0] == older
    assert f"{name} is not in its manifest" in found[2][0]
    assert not marker.exists()


# Code of a model's own


def with_own_code(model: Path, marker: Path, family: str, files: tuple[str, ...]) -> None:
    """Make the model one that brings a module, which makes the marker when it is imported."""
    (model / "own.py").write_text(
        f"open({str(marker)!r}, 'w')\nfrom transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast\n"
        "class C(LlamaConfig):\n    model_type = 'own'\nclass M(LlamaForCausalLM):\n    config_class = C\n"
        "class T(PreTrainedTokenizerFast):\n    pass\n"
    )
    if "config.json" in files:
        config = json.loads((model / "config.json").read_text())
        auto = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M", "AutoModelForSequenceClassification": "own.M"}
        (model / "config.json").write_text(json.dumps({**config, "model_type": family, "auto_map": auto}))
    if "tokenizer_config.json" in files:
        config = json.loads((model / "tokenizer_config.json").read_text())
        config |= {"tokenizer_class": "T", "auto_map": {"AutoTokenizer": ["own.T", "own.T"]}}
        (model / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_model_that_needs_its_own_code(
    material: tuple[Path, Path], model: Path, marker: Path, tmp_path: Path
) -> None:
    with_own_code(model, marker, "own", ("config.json",))
    done = command(["train", *words_for(material, tmp_path, f"model.path={model}")], tmp_path / "cache")
    assert done.returncode == 2, done.stderr
    assert "this model needs its own code (own.C for the family own)" in done.stderr
    assert "[y/N]" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    assert not marker.exists()


def test_no_way_into_a_model_asks_or_runs_its_code(
    model: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_own_code(model, marker, "own", ("config.json",))
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    monkeypatch.setattr("prefopt.model.load.model_folder", lambda path, revision=None: Path(path))  # past the refusal
    with pytest.raises(UserError, match=r"config\.json cannot be used"):
        load_policy(ModelSettings(str(model)), longest=8)
    for scalar_head in (False, True):
        with pytest.raises(ValueError, match="custom code"):
            load_as_users_do(str(model), scalar_head, "plain", "float32")
    assert not asked
    assert not marker.exists()


def test_a_family_that_transformers_has_is_taken_from_there(model: Path, marker: Path) -> None:
    with_own_code(model, marker, "llama", ("config.json",))
    policy = load_policy(ModelSettings(str(model)), longest=8)
    assert type(policy.pretrained).__module__.startswith("transformers.")
    load_as_users_do(str(model), False, "plain", "float32")
    load_tokenizer(str(model))
    assert not marker.exists()


@pytest.mark.parametrize("files", [("tokenizer_config.json",), ("config.json", "tokenizer_config.json")])
@pytest.mark.parametrize("family", ["llama", "own"])
def test_a_tokenizer_that_needs_its_own_code(
    files: tuple[str, ...], family: str, model: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_own_code(model, marker, family, files)
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    with pytest.raises(UserError, match=r"this tokenizer needs its own code \(T\)"):
        load_tokenizer(str(model))
    assert not asked
    assert not marker.exists()


@pytest.mark.slow
def test_the_code_of_these_tests_does_run_where_it_is_trusted(model: Path, marker: Path, tmp_path: Path) -> None:
    with_own_code(model, marker, "own", ("config.json",))
    code = f"from transformers import AutoConfig; AutoConfig.from_pretrained({str(model)!r}, trust_remote_code=True)"
    subprocess.run([sys.executable, "-c", code], env={**environment(tmp_path), "HF_HOME": str(tmp_path)}, check=True)
    assert marker.exists()


@pytest.mark.parametrize("place", [(), ("text_config",)])
def test_a_configuration_that_names_kernels_to_download(place: tuple[str, ...], model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    inner = config
    for key in place:
        inner = inner.setdefault(key, {})
    inner["_attn_implementation"] = "somebody/kernel@main:attention"
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"_attn_implementation in config\.json names code to download"):
        model_folder(str(model))


@pytest.mark.parametrize(
    "content",
    ["[]", "{", '"a"', "[" * 100_000, '{"model_type": "llama", "hidden_size": "many"}', '{"model_type": 3}', "{}"],
)
def test_a_configuration_that_is_none(content: str, model: Path) -> None:
    (model / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json|does not load"):
        load_policy(ModelSettings(str(model)), longest=8)


@pytest.mark.parametrize("name", ["csv", "json", "pandas", "webdataset"])
def test_a_reader_of_datasets_is_no_data_set(
    name: str, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.pkl").write_bytes(pickle.dumps(Bomb(marker)))
    Path("train.csv").write_text("prompt,chosen,rejected\na,b,c\n")
    with pytest.raises(UserError, match=f"^{name}: a reader of datasets"):
        open_source(SourceSettings(name))
    assert not marker.exists()


def test_a_parquet_file_whose_column_is_a_pickled_type(marker: Path, tmp_path: Path) -> None:
    extension = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": b""}
    extension["ARROW:extension:metadata"] = pickle.dumps(Bomb(marker))
    fields = [pa.field(name, pa.string(), metadata=extension) for name in ("prompt", "chosen", "rejected")]
    table = pa.table({field.name: ["a", "b"] for field in fields}, schema=pa.schema(fields))
    pa.parquet.write_table(table, tmp_path / "rows.parquet")
    kept = pa.parquet.read_schema(tmp_path / "rows.parquet").field("prompt").metadata
    assert kept[b"ARROW:extension:name"] == b"arrow.py_extension_type"
    rows = list(open_source(SourceSettings(str(tmp_path / "rows.parquet"))).rows())
    assert rows[0].value == {"prompt": "a", "chosen": "a", "rejected": "a"}
    assert not marker.exists()


# Headers of safetensors


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**64 - 1) + b"{}",
        struct.pack("<Q", 0) + b"{}",
        struct.pack("<Q", 3) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 8) + b'{"a": 5}',
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        *(
            struct.pack("<Q", len(header)) + header
            for header in (
                b'{"a": {"data_offsets": ["x", "y"]}}',
                b'{"a": {"data_offsets": [0]}}',
                b'{"a": {"data_offsets": [0, 1e999]}}',
                b'{"a": {"data_offsets": [0, NaN]}}',
                b'{"a": {"data_offsets": [0, 99999999999999999999999]}}',
                b'{"a": {"data_offsets": null}}',
            )
        ),
    ],
)
def test_headers_of_safetensors(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.safetensors is damaged"):
        check_safetensors("model.path", tmp_path / "a.safetensors")


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    with open(file, "wb") as out:
        out.write(struct.pack("<Q", 8 * 2**30))
        out.truncate(8 + 8 * 2**30)  # a hole: it takes no disk, and would take the memory
    with pytest.raises(UserError, match="tells of a header of 8589934592 bytes"):
        check_safetensors("model.path", file)
