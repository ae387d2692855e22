"""`prefopt export`: what is written is the model that was trained, told by another process; the rest is refused."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from prefopt.cli import main
from prefopt.errors import UserError
from prefopt.export.card import exported_card
from prefopt.export.gguf import find_converter
from prefopt.export.push import check_push
from prefopt.export.settings import GgufSettings, read_words
from prefopt.export.source import find_source
from tests.tiny import make_model, make_pairs, overrides, prefopt

STORIES = Path(__file__).resolve().parents[3] / "shared/models/stories260K"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a LoRA run of six steps in `run`, checkpoints at 4 and 6, and its base in `base`."""
    folder = tmp_path_factory.mktemp("export")
    make_model(folder / "base")
    words = overrides(
        folder / "base",
        make_pairs(folder / "pairs.jsonl", 24),
        folder / "run",
        "loss=simpo",
        "model.lora.r=4",
        "optim.lr=5e-2",
        "train.save_every=4",
        "train.eval_every=never",
        "data.eval_size=0",
    )
    done = prefopt(["train", *words, "train.epochs=1"], folder / "cache")
    assert done.returncode == 0, done.stderr
    return folder


def logps(folder: Path) -> torch.Tensor:
    """Next-token log-probabilities of a fixed text, as transformers (and peft) load the folder."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(torch.arange(20, 60)[None]).logits.float().log_softmax(-1)


@pytest.mark.slow
def test_merged_adapters_are_the_model_that_was_trained(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "merged"
    assert main(["export", str(place / "run"), f"out={out}"]) == 0
    assert "adapters merged, float32; a fresh process finds the same numbers to" in capsys.readouterr().out
    assert not (out / "adapter_config.json").exists()
    assert not list(out.glob("probe*"))
    trained = logps(place / "run/model")
    assert (logps(out) - trained).abs().max() < 1e-4
    assert (logps(place / "base") - trained).abs().max() > 0.05  # adapters that do something
    card = (out / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "## Held-out metrics" in card  # the card that training wrote
    assert "- The adapters are merged into" in card
    from transformers import AutoTokenizer

    base, copy = (AutoTokenizer.from_pretrained(f) for f in (place / "base", out))
    assert copy.chat_template == base.chat_template
    assert json.loads((out / "config.json").read_text())["attention_dropout"] == 0.1  # training had switched it off
    assert [p.name for p in place.iterdir() if p.name.startswith(".unverified")] == []


@pytest.mark.slow
def test_a_checkpoint_is_put_together_and_is_another_model_than_the_last(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = place / "at4"
    assert main(["export", str(place / "run"), "step=4", f"out={out}", "dtype=bfloat16"]) == 0
    assert "at step 4" in capsys.readouterr().out
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert "4 steps" in (out / "README.md").read_text()
    assert (logps(out) - logps(place / "run/model")).abs().max() > 0.02


def test_without_its_base_a_step_that_is_not_there_and_a_run_that_is_not_done_are_refused(place: Path) -> None:
    with pytest.raises(UserError, match="has no checkpoint") as refused:
        find_source(str(place / "run"), 5)
    assert refused.value.hint == "there are 4, 6"
    with pytest.raises(UserError, match="has no checkpoints"):
        find_source(str(place / "base"), 4)
    undone = place / "undone"
    shutil.copytree(place / "run", undone)
    (undone / "result.json").unlink()
    with pytest.raises(UserError, match=r"undone: .*(did not come to its end|was stopped|still goes on)") as refused:
        find_source(str(undone), None)
    assert refused.value.hint.endswith("; or take its newest checkpoint: step=6")
    assert find_source(str(undone), 4).is_checkpoint


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not STORIES.is_dir(), reason="../shared/models is not there")
def test_adapters_from_elsewhere_over_a_real_model_are_merged_and_kept(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(STORIES)
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapters")
    done = prefopt(["export", str(tmp_path / "adapters"), f"out={tmp_path / 'out'}"], tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    kept = prefopt(
        ["export", str(tmp_path / "adapters"), f"out={tmp_path / 'kept'}", "merge=false"], tmp_path / "cache"
    )
    assert kept.returncode == 0, kept.stderr
    assert (tmp_path / "kept/adapter_config.json").is_file()
    assert (tmp_path / "kept/tokenizer.json").is_file()
    trained = logps(tmp_path / "adapters")
    assert (logps(tmp_path / "out") - trained).abs().max() < 1e-4
    assert (logps(tmp_path / "kept") - trained).abs().max() < 1e-5
    assert (logps(STORIES) - trained).abs().max() > 0.1


@pytest.mark.slow
@pytest.mark.long
def test_shards_of_zero3_on_two_ranks_are_the_model_that_the_run_saved(tmp_path: Path) -> None:
    model, pairs = make_model(tmp_path / "base"), make_pairs(tmp_path / "pairs.jsonl", 24)
    words = overrides(model, pairs, tmp_path / "run", "loss=simpo", "deepspeed=zero3", "launch.num_processes=2")
    words += ["train.save_every=4", "train.max_steps=4", "train.eval_every=never", "data.eval_size=0"]
    done = prefopt(["train", *words], tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "run/checkpoints/step-00000004").glob("state-*.safetensors"))) == 2
    done = prefopt(["export", str(tmp_path / "run"), "step=4", f"out={tmp_path / 'out'}"], tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert (logps(tmp_path / "out") - logps(tmp_path / "run/model")).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.long
def test_a_reward_model_with_adapters_keeps_its_head(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    words = overrides(make_model(tmp_path / "base"), make_pairs(tmp_path / "pairs.jsonl", 24), tmp_path / "run")
    words += ["loss=reward_bt", "model.lora.r=4", "train.max_steps=4", "train.eval_every=never", "data.eval_size=0"]
    done = prefopt(["train", *words], tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    done = prefopt(["export", str(tmp_path / "run"), f"out={tmp_path / 'out'}"], tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").score.weight.shape == (1, 32)


def test_a_path_that_leads_nowhere_is_refused_without_asking_a_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/nine").mkdir(parents=True)
    (tmp_path / "runs/nine/run.yaml").write_text("")
    for path, hint in (("runs/nien", "did you mean 'nine'?"), ("./a", ""), ("models/of/mine", "")):
        with pytest.raises(UserError, match=f"there is no folder {path}") as refused:
            find_source(path, None)
        assert refused.value.hint == hint
    for name in ("gpt2", "user/model"):
        assert find_source(name, None).path == name


def words_are_refused(*words: str) -> str:
    with pytest.raises(UserError) as refused:
        read_words(["model", *words])
    return str(refused.value)


def test_settings_without_an_effect_or_of_another_kind_are_refused(tmp_path: Path) -> None:
    out = f"out={tmp_path / 'new'}"
    assert "private has no effect" in words_are_refused(out, "private=true")
    assert "gguf.converter has no effect" in words_are_refused(out, "gguf.converter=a.py")
    assert "dtype=bfloat16 has no effect with merge=false" in words_are_refused(out, "merge=false", "dtype=bfloat16")
    assert "gguf needs a whole model" in words_are_refused(out, "merge=false", "gguf=a.gguf")
    assert "push must be USER/NAME" in words_are_refused(out, "push=name")
    assert "step must be 1 or more" in words_are_refused(out, "step=0")
    assert "did you mean 'dtype'" in words_are_refused(out, "dtyp=float32")
    assert "must be one of stored, float32, bfloat16" in words_are_refused(out, "dtype=fp16")
    assert "out is not set" in words_are_refused()
    (tmp_path / "new").mkdir()
    (tmp_path / "new/file").write_text("")
    assert "there is something already" in words_are_refused(out)
    with pytest.raises(UserError, match="named without a key") as refused:
        read_words(["run=runs/trl", "out=c"])
    assert refused.value.hint == "prefopt export runs/trl out=FOLDER"
    with pytest.raises(UserError, match="one model at a time"):
        read_words(["a", "b", "out=c"])


def test_words_become_settings(tmp_path: Path) -> None:
    path, settings = read_words(["runs/a", f"out={tmp_path / 'x'}", "gguf=a.gguf", "gguf.converter=c.py", "merge=true"])
    assert (path, settings.merge, settings.dtype) == ("runs/a", True, "stored")
    assert settings.gguf == GgufSettings("a.gguf", "c.py")


def test_a_push_without_a_token_or_a_network_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        check_push("user/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="no token of the hub") as refused:
        check_push("user/name")
    assert "hf auth login" in refused.value.hint


def test_the_converter_is_found_on_the_path_or_by_name_and_else_is_said_where_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"convert_hf_to_gguf\.py is not on the PATH") as refused:
        find_converter(GgufSettings("a.gguf"))
    assert "github.com/ggml-org/llama.cpp" in refused.value.hint
    script = tmp_path / "convert_hf_to_gguf.py"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert find_converter(GgufSettings("a.gguf")) == script
    with pytest.raises(UserError, match="there is no such file"):
        find_converter(GgufSettings("a.gguf", str(tmp_path / "other.py")))


def test_the_converter_is_given_the_folder_and_its_failure_is_one_sentence(tmp_path: Path) -> None:
    from rich.console import Console

    from prefopt.errors import RunError
    from prefopt.export.gguf import convert

    script = tmp_path / "convert_hf_to_gguf.py"
    script.write_text("import sys\nopen(sys.argv[sys.argv.index('--outfile') + 1], 'w').write(sys.argv[1])\n")
    convert(script, tmp_path / "model", tmp_path / "a.gguf", Console(file=open(os.devnull, "w")))  # noqa: SIM115
    assert (tmp_path / "a.gguf").read_text() == str(tmp_path / "model")
    script.write_text("import sys\nsys.exit('Model LlamaForX is not supported')\n")
    with pytest.raises(RunError, match="Model LlamaForX is not supported") as failed:
        convert(script, tmp_path / "model", tmp_path / "b.gguf", Console())
    assert sys.executable in failed.value.hint


def test_a_card_says_that_merged_weights_are_not_those_of_4_bits() -> None:
    text = exported_card("---\nlibrary_name: peft\n---\n\n# mine\n", "runs/a", "base", True, "bfloat16", 0.01, "nf4")
    assert text.startswith("---\nlibrary_name: transformers\n---\n\n# mine\n")
    assert "- They were trained over weights held in nf4" in text
    assert "to 1.0e-02." in text
    assert exported_card("", "org/model", "org/model", False, "float32", 0.0, "plain").startswith(
        "---\nbase_model: org"
    )
