"""What a user may get wrong, through the real command: a sentence or two on stderr, the right exit code, nothing left.

Wrong rows (no chosen, chosen equal to rejected, empty, too long) are in tests/data; keys are in tests/test_config.py.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tiny import make_model, make_pairs, overrides, prefopt


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("bad")
    return make_model(folder / "model"), make_pairs(folder / "pairs.jsonl"), folder / "cache"


def refused(words: list[str], cache: Path, run_dir: Path, exit_code: int, *said: str) -> str:
    """Run, and check the manners of the refusal; gives stderr."""
    result = prefopt(words, cache)
    assert result.returncode == exit_code, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    complaint = result.stderr[result.stderr.index("prefopt: ") :]
    assert len(complaint.strip().splitlines()) <= 4, complaint
    for words_said in said:
        assert words_said in complaint, complaint
    assert not run_dir.exists() or not any(p.suffix == ".safetensors" for p in run_dir.rglob("*"))
    return complaint


def test_a_missing_file(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, pairs, cache = material
    words = ["train", *overrides(model, pairs.with_name("pears.jsonl"), tmp_path / "run")]
    refused(words, cache, tmp_path / "run", 2, "pears.jsonl", "pairs.jsonl")
    assert not (tmp_path / "run").exists()


def test_a_line_cut_in_half_names_file_and_line(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, pairs, cache = material
    broken = tmp_path / "cut.jsonl"
    lines = pairs.read_text().splitlines()
    broken.write_text("\n".join([*lines[:6], lines[6][:20]]) + "\n")
    words = ["train", *overrides(model, broken, tmp_path / "run")]
    refused(words, cache, tmp_path / "run", 2, "cut.jsonl", "7")


def test_conversations_without_a_chat_template(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, _, cache = material
    bare = shutil.copytree(model, tmp_path / "bare")
    config = json.loads((bare / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    rows = tmp_path / "chat.jsonl"
    turns = {"chosen": "yes", "rejected": "no"}
    chat = {k: [{"role": "user", "content": "hi"}, {"role": "assistant", "content": v}] for k, v in turns.items()}
    rows.write_text((json.dumps(chat) + "\n") * 12)
    words = ["train", *overrides(bare, rows, tmp_path / "run")]
    refused(words, cache, tmp_path / "run", 2, "chat.jsonl", "chat template", "data.chat_template")


@pytest.mark.parametrize("harm", ["no weights", "cut", "no config"])
def test_a_broken_model_folder(harm: str, material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, pairs, cache = material
    broken = shutil.copytree(model, tmp_path / "broken")
    weights = broken / "model.safetensors"
    if harm == "no weights":
        weights.unlink()
    elif harm == "cut":
        os.truncate(weights, weights.stat().st_size // 2)
    else:
        (broken / "config.json").unlink()
    named = {"no weights": "weights", "cut": "model.safetensors", "no config": "config.json"}[harm]
    words = ["train", *overrides(broken, pairs, tmp_path / "run")]
    refused(words, cache, tmp_path / "run", 2, "model.path", named)
    assert not (tmp_path / "run").exists()


def test_adapters_and_a_runs_folder_are_no_model_and_the_hint_says_which_is(
    material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    model, pairs, cache = material
    for where, hint in (
        ("lora", f"prefopt export {tmp_path}/lora out=FOLDER"),
        ("run/model", f"{tmp_path}/run/model?"),
    ):
        (tmp_path / where).mkdir(parents=True)
        (tmp_path / where / "adapter_config.json").write_text("{}")
        words = overrides(model, pairs, tmp_path / "made", f"model.path={tmp_path / where.removesuffix('/model')}")
        for command in ("train", "plan"):
            refused([command, *words], cache, tmp_path / "made", 2, hint)


def test_a_model_that_lacks_a_tensor_is_not_filled_up_at_random(
    material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    model, pairs, cache = material
    lacking = shutil.copytree(model, tmp_path / "lacking")
    tensors = load_file(lacking / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, lacking / "model.safetensors", metadata={"format": "pt"})
    words = ["train", *overrides(lacking, pairs, tmp_path / "run")]
    refused(words, cache, tmp_path / "run", 2, "model.layers.1.mlp.up_proj.weight")


def test_a_weight_that_is_not_a_number_names_file_and_tensor(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model, pairs, cache = material
    broken = shutil.copytree(model, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    words = ["train", *overrides(broken, pairs, tmp_path / "run")]
    said = refused(words, cache, tmp_path / "run", 2, f"{broken / 'model.safetensors'}: 1 of the 2048 numbers of ")
    assert "model.layers.1.mlp.up_proj.weight are not finite" in said


@pytest.mark.slow
def test_a_run_that_failed_before_its_first_step_leaves_its_folder_to_the_one_that_mends_it(
    material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    model, pairs, cache = material
    broken = shutil.copytree(model, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    words = ["train", *overrides(broken, pairs, tmp_path / "run", "data.eval_size=4")]
    refused(words, cache, tmp_path / "run", 2, "not finite")
    assert (tmp_path / "run" / "held_out.jsonl").exists()
    mended = ["train", *overrides(model, pairs, tmp_path / "run", "train.max_steps=1", "data.eval_size=0")]
    result = prefopt(mended, cache)
    assert result.returncode == 0, result.stderr
    assert f"{tmp_path / 'run'} held a run that had done no step; it starts anew\n" in result.stdout
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["settings"]["model"]["path"] == str(model)
    assert len(manifest["starts"]) == 1
    assert "not finite" not in (tmp_path / "run" / "logs" / "rank-0.log").read_text()
    assert not {"exit.json", "held_out.jsonl"} & {path.name for path in (tmp_path / "run").iterdir()}
    shown = prefopt(["train", "--repeat", str(tmp_path / "run"), "--show-config"], cache).stdout
    origin = {line.split()[0]: line for line in shown.splitlines()}
    assert origin["train.max_steps"].endswith(f"command line (of {tmp_path / 'run'})")
    assert origin["train.log_every"].endswith(f"train.yaml (of {tmp_path / 'run'})")


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("train", []),
        pytest.param("train", ["--dry-run"], marks=pytest.mark.slow),
        pytest.param("data", [], marks=pytest.mark.slow),
        pytest.param("plan", [], marks=pytest.mark.slow),
    ],
)
def test_rows_longer_than_the_models_positions_are_refused_before_there_is_a_folder(
    command: str, more: list[str], material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    model, _, cache = material
    rows = tmp_path / "long.jsonl"
    row = {"prompt": "p" * 200, "chosen": "c" * 90, "rejected": "r"}
    rows.write_text("".join(json.dumps({**row, "prompt": f"{i} {row['prompt']}"}) + "\n" for i in range(12)))
    words = [command, *overrides(model, rows, tmp_path / "run", "data.max_length=400", "data.eval_size=0"), *more]
    refused(words, cache, tmp_path / "run", 2, "256 positions", "set data.max_length=256 or less")
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_lists_near_ones(tmp_path: Path) -> None:
    refused(["train", "recipe=quickstar"], tmp_path, tmp_path / "run", 2, "'quickstart'")


def test_a_loss_that_needs_pairs_on_rows_without_any(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, _, cache = material
    rows = tmp_path / "sft.jsonl"
    rows.write_text((json.dumps({"prompt": "p", "completion": "c"}) + "\n") * 12)
    words = ["train", *overrides(model, rows, tmp_path / "run", "loss=dpo")]
    refused(words, cache, tmp_path / "run", 2, "sft.jsonl", "pairs")


def test_a_reference_for_a_loss_that_has_none(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, pairs, cache = material
    words = ["train", *overrides(model, pairs, tmp_path / "run", "loss=simpo", f"model.reference={model}")]
    refused(words, cache, tmp_path / "run", 2, "model.reference", "simpo")


def test_a_baseline_needs_two_prompts(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, _, cache = material
    rows = tmp_path / "one_prompt.jsonl"
    rows.write_text(
        "".join(json.dumps({"prompt": "p", "completion": f"a{i}", "label": i < 3}) + "\n" for i in range(9))
    )
    words = ["train", *overrides(model, rows, tmp_path / "run", "loss=kto", "data.eval_size=0")]
    refused(words, cache, tmp_path / "run", 2, "train: all 9 rows have the same prompt", "at least two prompts")


def test_rows_with_another_number_of_margins(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, _, cache = material
    rows = tmp_path / "margin.jsonl"
    pair = {"chosen": "a", "rejected": "b", "margin": 1.5}
    rows.write_text("".join(json.dumps({"prompt": f"p{i}", **pair}) + "\n" for i in range(12)))
    words = ["train", *overrides(model, rows, tmp_path / "run", "loss=modpo", "loss.weights=[0.4,0.3,0.3]")]
    refused(words, cache, tmp_path / "run", 2, "loss=modpo weighs 2 margins, the rows of train have 1")


def test_a_batch_that_cannot_be_reached(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, _, cache = material
    rows = tmp_path / "ranked.jsonl"
    ranked = [{"prompt": f"p{i}", "responses": ["a", "b", "c", "d"], "scores": [1, 2, 3, 4]} for i in range(12)]
    rows.write_text("".join(json.dumps(r) + "\n" for r in ranked))
    more = ["data.pairs=all", "train.batch_size=5"]
    words = ["train", *overrides(model, rows, tmp_path / "run", *more)]
    refused(words, cache, tmp_path / "run", 2, "train.batch_size=5", "6 pairs")
    words = ["train", *overrides(model, rows, tmp_path / "run", "train.batch_size=1", "launch.num_processes=2")]
    refused(words, cache, tmp_path / "run", 2, "train.batch_size=1", "2 processes")


def test_a_folder_that_cannot_be_written(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, pairs, cache = material
    file = tmp_path / "file"
    file.write_text("")
    words = ["train", *overrides(model, pairs, file / "run")]
    refused(words, cache, tmp_path / "run", 1, str(file))
    if os.geteuid():
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        refused(["train", *overrides(model, pairs, closed / "run")], cache, tmp_path / "run", 1, "closed")


@pytest.mark.parametrize("what", ["model", "data"])
def test_no_network_and_not_in_the_cache(what: str, material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, pairs, cache = material
    named = {"model": "model.path=nobody/never-downloaded", "data": "data.train=[{path: nobody/never-downloaded}]"}
    more = [named[what]]
    words = ["train", *overrides(model, pairs, tmp_path / "run", *more)]
    refused(words, cache, tmp_path / "run", 1, "nobody/never-downloaded")
    assert not (tmp_path / "run").exists()


def test_another_run_is_not_resumed_by_mistake(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, pairs, cache = material
    run_dir = tmp_path / "run"
    words = ["train", *overrides(model, pairs, run_dir, "train.max_steps=2")]
    assert prefopt(words, cache).returncode == 0
    before = {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file()}
    result = prefopt([*words, "optim.lr=2e-3"], cache)
    assert result.returncode == 2
    assert "optim.lr: 0.001 -> 0.002" in result.stderr
    with open(pairs.with_name("more.jsonl"), "w") as more:
        more.write(pairs.read_text() + json.dumps({"prompt": "new", "chosen": "a", "rejected": "b"}) + "\n")
    original = pairs.read_text()
    try:
        pairs.write_text(pairs.with_name("more.jsonl").read_text())
        result = prefopt(words, cache)
        assert result.returncode == 2
        assert "data" in result.stderr
    finally:
        pairs.write_text(original)
    assert {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file()} == before
