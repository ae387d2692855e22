"""Composition: precedence, whole groups, errors that name the key, and rules across settings."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from prefopt.checks import check
from prefopt.config import compose, compose_with_origins, identity, sources
from prefopt.errors import UserError
from prefopt.fill import from_mapping, known_keys
from prefopt.peer_names import NAMES
from prefopt.settings import RunSettings, load

QUICKSTART = "recipe=quickstart"


def refusal(*overrides: str, config_dir: Path | None = None) -> str:
    """What composing or checking says; fails where nothing is refused."""
    with pytest.raises(UserError) as caught:
        check(compose(list(overrides), config_dir))
    assert caught.value.exit_code == 2
    return str(caught.value)


def recipe(folder: Path, text: str, name: str = "recipe/mine.yaml") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return folder


def test_command_line_wins_over_recipe_over_group() -> None:
    assert compose([]).optim.lr == 1e-6
    assert compose([QUICKSTART]).optim.lr == 1e-3
    assert compose([QUICKSTART, "optim.lr=2e-4"]).optim.lr == 2e-4


def test_another_loss_is_taken_whole_and_says_so() -> None:
    composition = compose_with_origins([QUICKSTART, "loss=simpo", "loss.beta=2.5"])
    assert composition.run.loss == {
        "name": "simpo",
        "beta": 2.5,
        "gamma_beta_ratio": 0.5,
        "form": "logistic",
        "label_smoothing": 0.0,
        "normalisation": "length",
    }
    assert any("loss.lam" in note and "left out" in note for note in composition.notes)


def test_naming_the_recipes_own_loss_changes_nothing() -> None:
    assert compose([QUICKSTART, "loss=orpo"]) == compose([QUICKSTART])


def test_key_of_another_method_is_refused() -> None:
    assert "simpo has no such setting" in refusal(QUICKSTART, "loss=simpo", "loss.lam=1")


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_mistyped_key_is_refused_in_every_spelling(sign: str) -> None:
    message = refusal("recipe=dpo_zephyr", f"{sign}trainer.bta=1")
    assert "trainer.bta: there is no such key" in message
    assert "loss.beta" in message


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_known_key_may_be_spelt_with_plus(sign: str) -> None:
    assert compose([QUICKSTART, f"{sign}train.seed=7"]).train.seed == 7


def test_nearest_key_is_looked_for_in_the_same_group_first() -> None:
    assert "did you mean train.batch_size?" in refusal("train.batchsize=3")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.learning_rate=1e-5", "did you mean optim.lr?"),
        ("learning_rate=1e-5", "did you mean optim.lr?"),
        ("train.max_length=512", "did you mean data.max_length?"),
        ("train.per_device_train_batch_size=4", "did you mean train.batch_size? (it is what all devices take"),
        ("model.lora_r=8", "did you mean model.lora.r?"),
        ("train.output_dir=x", "did you mean dir?"),
        ("train.lr_scheduler_type=linear", "did you mean optim.schedule?"),
        ("resume=true", "the same command goes on from the newest checkpoint"),
        ("train.resume_from_checkpoint=runs/a", "the same command goes on from the newest checkpoint"),
    ],
)
def test_a_name_of_another_trainer_is_told_what_it_is_called_here(override: str, said: str) -> None:
    assert said in refusal(QUICKSTART, override)


def test_the_papers_gamma_is_told_to_be_a_ratio_here() -> None:
    for word in ("loss.gamma=1", "loss.simpo_gamma=1"):
        said = refusal(QUICKSTART, "loss=simpo", word)
        assert "did you mean loss.gamma_beta_ratio? (the paper's gamma is gamma_beta_ratio times beta)" in said


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("mine.yaml", "recipe=mine, a file in recipes/recipe"),
        ("recipes/recipe/team/mine.yaml", "recipe=team/mine, a file in recipes/recipe"),
        ("pairs.jsonl", "'data.train=[{path: pairs.jsonl}]'"),
        ("quickstart", "for instance recipe=quickstart"),
    ],
)
def test_a_word_that_stands_alone_is_given_the_key_that_takes_it(word: str, said: str) -> None:
    assert refusal(word).endswith(said)


def test_every_name_of_another_trainer_means_a_key_that_there_is() -> None:
    keys = {*known_keys(RunSettings), "loss.beta", "loss.gamma_beta_ratio"}
    assert {key for key, _ in NAMES.values()} <= keys


@pytest.mark.parametrize(
    ("override", "near"), [("recipe=quikstart", "quickstart"), ("loss=simppo", "simpo"), ("model=tinny", "tiny")]
)
def test_unknown_choice_names_the_near_ones(override: str, near: str) -> None:
    assert near in refusal(override)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.batch_size=abc", "expected a whole number, got text 'abc' (command line)"),
        ("train.batch_size=1.5", "expected a whole number"),
        ("train.batch_size=true", "expected a whole number, got true"),
        ("train.epochs=null", "expected a number, got null"),
        ("train=3", "expected keys and values"),
        ("optim.lr=nan", "expected a finite number"),
        ("model.dtype=fp16", "must be one of float32, bfloat16"),
        ("model.dtype=float16", "must be one of float32, bfloat16"),
        ("train.autocast=fp16", "must be one of none, bf16"),
        ("train.on_nonfinite=skip", "must be one of stop, skip_step"),
        ("train.max_skipped_steps=0", "must be 1 or more"),
        ("train.max_skipped_steps=9", "has no effect: train.on_nonfinite=stop skips none"),
        ("sample.every=0", "sample.every must be never, or a number of steps, 1 or more"),
        ("sample.max_repetition=1", "must be in [0, 1)"),
        ("sample.max_drift=0", "must be above 0"),
        ("sample.on_collapse=stop", "has no effect: sample.every is never"),
        ("sample.max_drift=3", "has no effect: sample.every is never"),
        ("train.seed=1,2", "add -m"),
        ("train.seed=${optim.lrr}", "optim.lrr"),
        ("train.seed=[1", "cannot be read"),
        ("quickstart", "expected key=value"),
        ("loss.name=dpo", "loss=dpo"),
        ("hydra.run.dir=x", "prefopt train and prefopt sweep only"),
        ("modl/x=1", "there is no such group"),
        ("data={a: 1}", "takes the name of a file"),
        ("model=null", "one must be chosen"),
        ("~train.seed", "can be deleted"),
        ("~data.eval.nothing", "nothing to delete"),
        ("data.train=[{path: x, weigth: 2}]", "data.train.0.weigth: there is no such key"),
        ("data.train.7.path=x", "data.train.7.path=x"),
        ("data.eval.heldout.pth=x", "data.eval.NAME.path"),
        ("optim.betas=[0.9]", "two numbers"),
    ],
)
def test_bad_override_is_one_message(override: str, said: str) -> None:
    message = refusal(QUICKSTART, override)
    assert said in message
    assert len(message.splitlines()) <= 2


def test_a_setting_of_a_method_may_be_a_list() -> None:
    assert compose(["loss=modpo", "loss.weights=[1, 0.2]"]).loss["weights"] == [1.0, 0.2]
    with pytest.raises(UserError, match=r"loss\.weights\.1: expected a number, got text 'much'"):
        compose(["loss=modpo", "loss.weights=[1, much]"])


def test_interpolation_is_resolved() -> None:
    assert compose(["train.seed=5", "train.max_steps=${train.seed}"]).train.max_steps == 5


def test_lora_can_be_set_key_by_key() -> None:
    lora = compose(["model.lora.r=8"]).model.lora
    assert lora is not None
    assert (lora.r, lora.alpha) == (8, 32.0)


def test_new_keys_are_allowed_under_deepspeed_config() -> None:
    config = compose(["deepspeed=zero2", "deepspeed.config.zero_optimization.sub_group_size=1000"]).deepspeed.config
    assert config is not None
    assert config["zero_optimization"]["sub_group_size"] == 1000
    assert config["zero_optimization"]["stage"] == 2


def test_mapping_on_the_command_line_replaces_the_recipes() -> None:
    assert list(compose([QUICKSTART, "data.eval={other: {path: x.jsonl}}"]).data.eval) == ["other"]
    assert compose([QUICKSTART, "~data.eval.heldout"]).data.eval == {}


def test_name_and_folder_follow_from_recipe_and_settings() -> None:
    run = compose([QUICKSTART])
    assert run.name == "quickstart"
    assert run.dir == f"runs/quickstart-{identity(run)}"
    assert compose([QUICKSTART, "name=mine"]).dir == f"runs/mine-{identity(run)}"
    assert compose([QUICKSTART, "dir=elsewhere"]).dir == "elsewhere"


@pytest.mark.parametrize(
    "override",
    [
        *("name=x", "dir=x", "tracker=tensorboard", "train.log_every=9", "train.save_every=5"),
        *("train.keep_checkpoints=3", "data.num_workers=2", "data.cache_dir=x", "launch.threads_per_process=2"),
        *("launch.num_nodes=2", "launch.node_rank=1", "launch.rendezvous=a:1", "launch.gpus_per_node=4"),
        *("launch.timeout_minutes=1", "loss.lam=1", "optim.lr=0.001"),
        *("train.on_nonfinite=skip_step", "train.max_skipped_steps=9", "sample.every=5", "sample.on_collapse=stop"),
        *("sample.max_repetition=0.2", "sample.max_drift=2"),
        *("launch.num_processes=2", "launch.device=cpu", "deepspeed=zero2", "fsdp=full_shard"),  # 1e-5 and no more
    ],
)
def test_identity_stays_where_the_numbers_do(override: str) -> None:
    assert identity(compose([QUICKSTART, override])) == identity(compose([QUICKSTART]))


@pytest.mark.parametrize(
    "override",
    [
        *("loss.lam=0.5", "optim.lr=2e-3", "train.seed=1", "train.batch_size=16", "data.max_length=80", "loss=dpo"),
        *("model.dtype=bfloat16", "data.train.0.limit=10"),
    ],
)
def test_identity_changes_with_the_numbers(override: str) -> None:
    assert identity(compose([QUICKSTART, override])) != identity(compose([QUICKSTART]))


def test_sources_name_the_file_or_the_command_line() -> None:
    origin = {key: where for key, _, where in sources([QUICKSTART, "train.seed=7", "model.lora.r=8"])}
    assert origin["train.seed"] == "command line"
    assert origin["loss.lam"] == "recipe/quickstart.yaml"
    assert origin["loss.nll_over"] == "loss/orpo.yaml"
    assert origin["train.epochs"] == "recipe/quickstart.yaml"
    assert origin["train.log_every"] == "train.yaml"
    assert origin["model.lora.alpha"] == "default"
    assert origin["name"] == "recipe=quickstart"


def test_own_recipe_lies_beside_the_packaged_ones(tmp_path: Path) -> None:
    folder = recipe(
        tmp_path, "# @package _global_\ndefaults:\n  - override /loss: dpo\nloss:\n  beta: 0.3\ntrain:\n  seed: 3\n"
    )
    run = compose(["recipe=mine"], folder)
    assert (run.name, run.loss["beta"], run.train.seed) == ("mine", 0.3, 3)
    assert compose([QUICKSTART], folder) == compose([QUICKSTART])


def test_recipes_of_the_working_directory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe(tmp_path / "recipes", "# @package _global_\ntrain:\n  seed: 3\n")
    monkeypatch.chdir(tmp_path)
    assert compose(["recipe=mine"]).train.seed == 3


def test_a_recipe_that_lies_elsewhere_is_found_and_told_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal("recipe=mine").endswith(f"looked in prefopt's own only: {tmp_path} has no folder recipes")
    recipe(tmp_path, "# @package _global_\n", "mine.yaml")
    assert refusal("recipe=mine").endswith(
        "mine.yaml is not where recipes are looked for: move it to recipes/recipe/mine.yaml"
    )
    recipe(tmp_path, "# @package _global_\n", "recipes/mine.yaml")
    for word in ("recipe=mine", "recipe=recipes/mine.yaml"):
        assert refusal(word).endswith("recipes/mine.yaml is one folder too high: move it to recipes/recipe/mine.yaml")
    recipe(tmp_path, "# @package _global_\n", "recipes/recipe/mine.yaml")
    assert refusal("recipe=recipes/recipe/mine.yaml").endswith("a file is chosen by its name: recipe=mine")
    said = refusal("recipe=other")
    assert said.endswith("prefopt train --help lists them; looked in ./recipes/recipe and prefopt's own")


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("model=/data/models/mine", "did you mean model.path=/data/models/mine?"),
        ("model=org/name", "did you mean model.path=org/name?"),
        ("data=pairs.jsonl", "did you mean 'data.train=[{path: pairs.jsonl}]'?"),
    ],
)
def test_a_path_in_the_place_of_a_name_is_told_its_key(override: str, meant: str) -> None:
    assert meant in refusal(override)


def test_own_file_hides_the_packaged_one_and_says_so(tmp_path: Path) -> None:
    folder = recipe(tmp_path, "# @package _global_\ntrain:\n  seed: 3\n", "recipe/quickstart.yaml")
    composition = compose_with_origins([QUICKSTART], folder)
    assert composition.run.train.seed == 3
    assert [note for note in composition.notes if "hides" in note] == [
        f"recipe/quickstart.yaml is read from {folder} and hides the one that comes with prefopt"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# @package _global_\ntrain:\n  batchsize: 3\n", "train.batchsize: there is no such key"),
        ("train:\n  seed: 3\n", "# @package _global_"),
        ("# @package _global_\ndefaults:\n  - override /loss: simppo\n", "simpo"),
        ("# @package _global_\ntrain: {seed: 3\n", "not YAML"),
        ("# @package _global_\nloss:\n  name: simpo\n", "override /loss: simpo"),
        ("# @package _global_\nloss: dpo\n", "defaults list: - override /loss: dpo"),
        ("# @package _global_\noptim: adafactor\n", "defaults list: - override /optim: adafactor"),
        ("# @package _global_\ndata: mine.jsonl\n", "data: {train: [{path: mine.jsonl}]}"),
        ("# @package _global_\n- 1\n", "mine"),
    ],
)
def test_bad_recipe_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    message = refusal("recipe=mine", config_dir=recipe(tmp_path, text))
    assert said in message
    assert "mine" in message or "defaults list" in message


def test_missing_config_dir_is_refused(tmp_path: Path) -> None:
    assert "there is no such folder" in refusal(QUICKSTART, config_dir=tmp_path / "nothing")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.reference=some/model", "model.reference has no effect"),
        ("model.path=''", "model.path is not set"),
        ("data.train=[]", "data.train is empty"),
        ("train.batch_size=0", "train.batch_size"),
        ("train.tokens_per_micro_batch=0", "auto, or 1 or more tokens"),
        ("train.tokens_per_micro_batch=most", "auto, or 1 or more tokens"),
        ("launch.num_processes=64", "less than the 64 processes"),
        ("data.max_prompt_length=64", "below data.max_length=64"),
        ("train.eval_every=sometimes", "epoch, never, or a number of steps"),
        ("train.save_every=0", "epoch, never, or a number of steps"),
        ("train.early_stop_patience=2", "without train.best_metric"),
        ("optim.warmup_ratio=1", "in [0, 1)"),
        ("model.lora.r=0", "model.lora.r"),
        ("model.lora.dropout=1", "model.lora.dropout"),
        ("sample.temperature=-1", "sample.temperature"),
        ("data.eval={}", "held-out prompts"),
        ("loss.lam=-1", "lam must be 0 or more"),
    ],
)
def test_settings_that_cannot_work_together_are_refused(override: str, said: str) -> None:
    assert said in refusal(QUICKSTART, override)


def test_answers_in_between_need_answers_and_a_drift_needs_evaluations() -> None:
    assert "sample.every=5 has no effect: sample.count is 0" in refusal(QUICKSTART, "sample.count=0", "sample.every=5")
    check(compose([QUICKSTART, "sample.every=5", "sample.on_collapse=stop", "sample.max_drift=2"]))
    unseen = refusal(QUICKSTART, "sample.every=5", "sample.max_drift=2", "train.eval_every=never")
    assert "sample.max_drift=2.0 has no effect: train.eval_every is never" in unseen


def test_a_recipe_that_watches_answers_may_train_a_reward_model(tmp_path: Path) -> None:
    text = (
        "defaults: [override /model: tiny, override /data: manners]\nsample: {count: 4, every: 5, on_collapse: stop}\n"
    )
    folder = recipe(tmp_path, f"# @package _global_\n{text}")
    composition = compose_with_origins(["recipe=mine", "loss=reward_bt"], folder)
    check(composition.run)
    assert composition.run.sample.every == "never"
    assert any("sample.count=4" in note for note in composition.notes)


def test_an_attention_kernel_has_no_effect_on_padded_rows() -> None:
    assert "model.attention=flex has no effect" in refusal(QUICKSTART, "model.layout=padded", "model.attention=flex")


def test_a_measured_token_budget_is_refused_where_nothing_can_be_tried() -> None:
    auto = "train.tokens_per_micro_batch=auto"
    assert compose([QUICKSTART, auto]).train.tokens_per_micro_batch == "auto"
    assert "cannot be tried" in refusal(QUICKSTART, auto, "deepspeed=zero2")


def test_best_metric_needs_an_evaluation() -> None:
    best = "train.best_metric=eval/heldout/loss"
    assert "train.eval_every" in refusal(QUICKSTART, best, "train.eval_every=never")
    assert "evaluation set" in refusal(QUICKSTART, best, "data.eval={}", "sample.count=0")


@pytest.mark.parametrize(
    ("key", "instead"),
    [("gradient_clipping", "optim.max_grad_norm"), ("train_batch_size", "train.batch_size"), ("scheduler", "schedule")],
)
def test_deepspeed_may_not_say_what_prefopt_says(key: str, instead: str) -> None:
    assert instead in refusal(QUICKSTART, "deepspeed=zero2", f"deepspeed.config.{key}=1")


def model_folder(folder: Path, tensor_bytes: int = 16) -> Path:
    """A folder that looks like a model: one tensor of 16 bytes promised, `tensor_bytes` there."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * tensor_bytes)
    return folder


def test_whole_model_folder_passes(tmp_path: Path) -> None:
    check(compose([QUICKSTART, f"model.path={model_folder(tmp_path / 'm')}"]))


def test_truncated_weights_are_refused_by_name(tmp_path: Path) -> None:
    message = refusal(QUICKSTART, f"model.path={model_folder(tmp_path / 'm', tensor_bytes=15)}")
    assert "model.safetensors is damaged" in message


@pytest.mark.parametrize("content", [b"", b"abc", struct.pack("<Q", 10**9) + b"{}", struct.pack("<Q", 2) + b"[]"])
def test_weights_without_a_header_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors is damaged" in refusal(QUICKSTART, f"model.path={folder}")


@pytest.mark.parametrize(
    ("missing", "said"),
    [("config.json", "config.json"), ("model.safetensors", "no weights"), ("tokenizer.json", "no tokenizer")],
)
def test_incomplete_model_folder_is_refused(tmp_path: Path, missing: str, said: str) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / missing).unlink()
    assert said in refusal(QUICKSTART, f"model.path={folder}")


def test_missing_shard_is_refused_by_name(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    index = {"weight_map": {"w": "model.safetensors", "v": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-2.safetensors" in refusal(QUICKSTART, f"model.path={folder}")


def test_path_that_is_no_folder_is_refused() -> None:
    assert "there is no folder ./nothing" in refusal(QUICKSTART, "model.path=./nothing")


def test_run_yaml_reads_back_unchanged(tmp_path: Path) -> None:
    run = compose([QUICKSTART, "model.lora.r=8", "deepspeed=zero3"])
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(asdict(run), sort_keys=False))
    assert load(file) == run


def test_run_yaml_with_an_unknown_key_names_file_and_key(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("train: {batch_sise: 3}\n")
    with pytest.raises(UserError, match=r"run\.yaml: train\.batch_sise: there is no such key"):
        load(file)


def test_whole_number_becomes_a_float_where_one_is_expected() -> None:
    epochs = from_mapping(RunSettings, {"train": {"epochs": 2}}).train.epochs
    assert isinstance(epochs, float)


def test_what_a_recipe_keeps_beside_ones_own_data_or_adapters_is_said() -> None:
    def notes(*words: str) -> str:
        return " | ".join(compose_with_origins(["recipe=simpo_llama3_instruct", *words]).notes)

    own = "data.train=[{path: pairs.jsonl}]"
    assert "data.eval.test still of data/llama3_ultrafeedback.yaml" in notes(own)
    assert "still of" not in notes(own, "data.eval={}", "data.eval_size=8")
    assert "optim.lr=1e-06 is of recipe/simpo_llama3_instruct.yaml" in notes("model.lora.r=16")
    assert notes("model.lora.r=16", "optim.lr=5e-5") == notes() == ""
