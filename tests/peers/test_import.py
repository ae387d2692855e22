"""`prefopt import`: every key of a peer's file is accounted for, and what it becomes composes and means the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from prefopt.cli import main
from prefopt.config import compose
from prefopt.errors import UserError
from prefopt.peers.command import check_composes, import_file, understand
from prefopt.peers.recipe_text import flow, recipe_text
from prefopt.peers.taking import Kind, Options, Taking
from prefopt.peers.trl_methods import DPO
from prefopt.settings import RunSettings

HANDBOOK = """\
model_name_or_path: org/base-sft
torch_dtype: null
dataset_mixer:
  org/pairs: 0.5
dataset_splits: [train_prefs, test_prefs]
preprocessing_num_workers: 12
bf16: true
beta: 0.01
do_eval: true
evaluation_strategy: steps
eval_steps: 100
gradient_accumulation_steps: 2
gradient_checkpointing: true
learning_rate: 5e-7
lr_scheduler_type: cosine
max_length: 1024
max_prompt_length: 512
num_train_epochs: 1
optim: adamw_torch
output_dir: data/my-dpo
per_device_train_batch_size: 8
push_to_hub: true
save_strategy: "no"
warmup_ratio: 0.1
a_key_of_tomorrow: 3
"""
LLAMA_FACTORY = """\
model_name_or_path: org/base
stage: dpo
finetuning_type: lora
lora_rank: 8
pref_beta: 2.0
pref_loss: simpo
simpo_gamma: 1.0
dataset: pairs_en
template: llama3
cutoff_len: 2048
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 5.0e-6
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_steps: 20
bf16: true
plot_loss: true
"""
AXOLOTL = """\
base_model: org/base
adapter: qlora
load_in_4bit: true
lora_r: 64
lora_alpha: 32
lora_dropout: 0.05
lora_target_linear: true
rl: simpo
rl_beta: 2.0
simpo_gamma: 1.0
datasets:
  - path: org/pairs
    split: train
    type: chatml.intel
val_set_size: 0.1
sequence_len: 4096
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 1
optimizer: paged_adamw_8bit
lr_scheduler: cosine
learning_rate: 5e-6
warmup_ratio: 0.1
saves_per_epoch: 4
wandb_project:
"""


def imported(
    folder: Path, text: str, name: str = "dpo_config.yaml", options: Options | None = None
) -> tuple[RunSettings, Taking]:
    """The composed run of what comes of a file, and the account."""
    file = folder / name
    file.write_text(text, encoding="utf-8")
    peer, taken = understand(file, options or Options())
    recipes = folder / "recipes_of_test/recipe"
    recipes.mkdir(parents=True, exist_ok=True)
    (recipes / "mine.yaml").write_text(recipe_text(taken, peer, str(file)), encoding="utf-8")
    assert sorted(line.key for line in taken.lines if line.key in taken.given) == sorted(taken.given)
    return compose(["recipe=mine"], recipes.parent), taken


def trl(folder: Path, name: str = "dpo_config.yaml", **keys: Any) -> tuple[RunSettings, Taking]:
    return imported(folder, yaml.safe_dump({"model_name_or_path": "org/base", **keys}), name)


def kind_of(taken: Taking, key: str) -> Kind:
    return next(line.kind for line in taken.lines if line.key == key)


def said_of(taken: Taking, key: str) -> str:
    return next(line.said for line in taken.lines if line.key == key)


def test_a_recipe_of_the_handbook_becomes_the_same_run(tmp_path: Path) -> None:
    run, taken = imported(tmp_path, HANDBOOK, options=Options(processes=4))
    assert run.loss == {"name": "dpo", "beta": 0.01}
    assert run.model.path == "org/base-sft"
    assert (run.model.dtype, run.train.autocast, run.model.checkpoint_every) == ("float32", "bf16", 1)
    assert (run.optim.lr, run.optim.schedule, run.optim.warmup_ratio) == (5e-7, "cosine", 0.1)
    assert run.train.batch_size == 8 * 2 * 4
    assert (run.data.max_length, run.data.max_prompt_length, run.data.too_long) == (1024, 512, "truncate_prompt")
    assert [(s.path, s.split, s.weight) for s in run.data.train] == [("org/pairs", "train_prefs", 0.5)]
    assert run.data.eval["heldout"].split == "test_prefs"
    assert (run.train.eval_every, run.train.save_every) == (100, "never")
    assert kind_of(taken, "dataset_mixer") is Kind.OTHER  # a share is another one in each epoch
    assert kind_of(taken, "a_key_of_tomorrow") is Kind.UNKNOWN
    assert kind_of(taken, "push_to_hub") is Kind.WITHOUT


def test_gamma_is_divided_by_beta_and_warm_up_steps_by_all_steps(tmp_path: Path) -> None:
    run, taken = imported(tmp_path, LLAMA_FACTORY, options=Options(processes=8, rows=10_000))
    assert run.loss["name"] == "simpo"
    assert (run.loss["beta"], run.loss["gamma_beta_ratio"]) == (2.0, 0.5)
    assert kind_of(taken, "simpo_gamma") is Kind.OTHER
    assert run.train.batch_size == 64
    assert run.optim.warmup_ratio == pytest.approx(20 / 469, abs=1e-6)  # ceil(10000 / 64 * 3) steps
    assert run.model.lora is not None
    assert (run.model.lora.r, run.model.lora.alpha, run.model.lora.target_modules) == (8, 16.0, "all-linear")
    assert kind_of(taken, "dataset") is Kind.NONE
    assert "pairs_en: LLaMA-Factory's own" in said_of(taken, "dataset")


def test_without_the_number_of_rows_warm_up_steps_have_no_equivalent(tmp_path: Path) -> None:
    run, taken = imported(tmp_path, LLAMA_FACTORY)
    assert kind_of(taken, "warmup_steps") is Kind.NONE
    assert "rows=N" in said_of(taken, "warmup_steps")
    assert "processes=N" in said_of(taken, "per_device_train_batch_size")
    assert run.optim.warmup_ratio == 0.1


def test_data_of_llama_factory_are_found_by_its_index(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset_info.json").write_text('{"pairs_en": {"file_name": "pairs.json", "ranking": true}}')
    run, _ = imported(tmp_path, LLAMA_FACTORY + "max_samples: 50\n")
    assert [(s.path, s.limit) for s in run.data.train] == [(f"{tmp_path}/data/pairs.json", 50)]


def test_simpo_of_axolotl_is_cpo_simpo_unless_cpo_alpha_is_0(tmp_path: Path) -> None:
    run, taken = imported(tmp_path, AXOLOTL)
    assert run.loss == {"name": "cpo_simpo", "beta": 2.0, "gamma_beta_ratio": 0.5, "nll_weight": 1.0}
    assert kind_of(taken, "rl") is Kind.OTHER
    assert kind_of(taken, "saves_per_epoch") is Kind.NONE
    assert run.optim.name == "paged_adamw_8bit"
    assert run.optim.lr == 5e-6  # which YAML reads as text
    assert run.model.base == "nf4"
    assert (run.data.max_length, run.data.too_long, run.data.eval_size) == (4096, "drop", 0.1)
    run, taken = imported(tmp_path, AXOLOTL + "cpo_alpha: 0\n")
    assert run.loss["name"] == "simpo"
    assert kind_of(taken, "rl") is Kind.TAKEN


@pytest.mark.parametrize("loss_type", DPO)
def test_every_loss_of_trls_dpo_composes(loss_type: str, tmp_path: Path) -> None:
    smoothing = {"label_smoothing": 0.1} if loss_type in ("robust", "exo_pair") else {}
    run, _ = trl(tmp_path, loss_type=loss_type, beta=0.2, **smoothing)
    assert run.loss["name"] == DPO[loss_type][0]
    assert loss_type == "sft" or run.loss["beta"] == 0.2


def test_label_smoothing_of_sigmoid_is_cdpo_and_newer_trl_drops_it(tmp_path: Path) -> None:
    run, taken = trl(tmp_path, loss_type="sigmoid", label_smoothing=0.1)
    assert (run.loss["name"], run.loss["label_smoothing"]) == ("cdpo", 0.1)
    assert "0.29 ignores it" in said_of(taken, "label_smoothing")
    run, taken = trl(tmp_path, loss_type="ipo", label_smoothing=0.1)
    assert kind_of(taken, "label_smoothing") is Kind.WITHOUT
    assert run.loss["normalisation"] == "mean"


@pytest.mark.parametrize(
    ("keys", "loss"),
    [
        ({"use_weighting": True}, {"name": "wpo", "beta": 0.1, "clamp": "none", "label_smoothing": 0.0}),
        ({"ld_alpha": 0.3}, {"name": "ld_dpo", "beta": 0.1, "ld_alpha": 0.3}),
        (
            {"f_divergence_type": "js_divergence"},
            {"name": "f_dpo", "divergence": "js", "beta": 0.1, "alpha": 0.5},
        ),
        ({"use_weighting": False}, {"name": "dpo", "beta": 0.1}),
    ],
)
def test_switches_of_dpo_that_make_it_another_method(
    keys: dict[str, Any], loss: dict[str, Any], tmp_path: Path
) -> None:
    assert trl(tmp_path, **keys)[0].loss == loss


def test_several_losses_and_rpo_are_a_mix(tmp_path: Path) -> None:
    run, _ = trl(tmp_path, loss_type=["sigmoid", "sft"], loss_weights=[0.8, 0.2], beta=0.3)
    parts = run.loss["parts"]
    assert [(p["name"], p["weight"]) for p in parts] == [("dpo", 0.8), ("sft", 0.2)]
    assert parts[0]["beta"] == 0.3
    run, _ = trl(tmp_path, rpo_alpha=1.0, beta=0.1)
    assert [p["name"] for p in run.loss["parts"]] == ["dpo", "sft"]


@pytest.mark.parametrize(
    ("name", "keys", "loss"),
    [
        (
            "orpo.yaml",
            {"beta": 0.05},
            {"name": "orpo", "lam": 0.05, "nll_over": "sequence"},
        ),
        (
            "config.yaml",
            {"cpo_alpha": 0.0, "loss_type": "simpo", "simpo_gamma": 1.375, "beta": 2.5},
            {"name": "simpo", "beta": 2.5, "gamma_beta_ratio": 0.55},
        ),
        (
            "config.yaml",
            {"simpo_gamma": 0.5, "loss_type": "simpo", "beta": 2.0},
            {"name": "cpo_simpo", "beta": 2.0, "gamma_beta_ratio": 0.25, "nll_weight": 1.0},
        ),
        ("cpo.yaml", {"beta": 0.1}, {"name": "cpo", "beta": 0.1, "nll_weight": 1.0}),
        (
            "config.yaml",
            {"gamma_beta_ratio": 0.55, "beta": 2.5, "loss_type": "sigmoid"},
            {"name": "simpo", "beta": 2.5, "gamma_beta_ratio": 0.55, "form": "logistic"},
        ),
        ("kto.yaml", {"desirable_weight": 1.2}, {"name": "kto", "desirable_weight": 1.2, "undesirable_weight": 1.0}),
        ("sft.yaml", {"packing": True}, {"name": "sft", "reduction": "token_mean"}),
        ("reward.yaml", {"center_rewards_coefficient": 0.01}, {"name": "reward_bt", "center": 0.01}),
    ],
)
def test_trls_other_trainers(name: str, keys: dict[str, Any], loss: dict[str, Any], tmp_path: Path) -> None:
    run, _ = trl(tmp_path, name, **keys)
    assert loss.items() <= run.loss.items()


def test_what_trl_takes_where_its_file_says_nothing_is_written_down(tmp_path: Path) -> None:
    run, taken = trl(tmp_path, beta=0.1)
    assert (run.optim.lr, run.optim.schedule, run.optim.warmup_ratio) == (1e-6, "linear", 0.0)
    assert (run.train.epochs, run.train.batch_size, run.data.max_length) == (3.0, 8, 1024)
    assert kind_of(taken, "learning_rate") is Kind.DEFAULT


def test_what_axolotl_takes_where_its_file_says_nothing_is_written_down(tmp_path: Path) -> None:
    run, _ = imported(tmp_path, "base_model: org/base\nrl: dpo\nmicro_batch_size: 2\ngradient_accumulation_steps: 4\n")
    assert run.loss == {"name": "dpo", "beta": 0.1}
    assert (run.optim.schedule, run.optim.warmup_ratio, run.model.dtype) == ("cosine", 0.03, "bfloat16")
    assert (run.train.batch_size, run.data.max_length) == (8, 512)


@pytest.mark.parametrize(
    "text",
    [
        HANDBOOK,
        LLAMA_FACTORY,
        AXOLOTL,
        "model_name_or_path: a\nrun_name: dpo\nuse_peft: true\nloss_type: ipo\nmax_prompt_length: 128\n",
        "stage: dpo\npref_loss: ipo\nfinetuning_type: lora\n",
        "base_model: a\nrl: ipo\nadapter: lora\nlr_scheduler: constant\n",
    ],
)
def test_every_setting_of_the_recipe_is_in_the_table(text: str, tmp_path: Path) -> None:
    file = tmp_path / "dpo.yaml"
    file.write_text(text)
    taken = understand(file, Options())[1]
    table = "\n".join(f"{line.key} {line.to}" for line in taken.lines)
    assert [key for key in taken.settings if key not in table] == []


def test_defaults_of_lora_that_the_file_leaves_out_are_in_the_table(tmp_path: Path) -> None:
    run, taken = trl(tmp_path, use_peft=True, lora_r=8)
    assert run.model.lora is not None
    assert (run.model.lora.r, run.model.lora.alpha, run.model.lora.dropout) == (8, 32.0, 0.05)
    shown = {line.to for line in taken.lines if line.kind is Kind.DEFAULT}
    assert {"model.lora.alpha=32.0", "model.lora.dropout=0.05", "data.too_long=truncate_response"} <= shown


def test_an_unknown_key_that_is_near_a_known_one_names_it(tmp_path: Path) -> None:
    _, taken = trl(tmp_path, betta=0.3, zzzzzz=1)
    assert said_of(taken, "betta").endswith("did you mean 'beta', of which the peer's default is written?")
    assert said_of(taken, "zzzzzz").endswith("look whether it matters")


def test_warm_up_steps_without_an_equivalent_say_what_is_written(tmp_path: Path) -> None:
    run, taken = imported(tmp_path, AXOLOTL.replace("warmup_ratio: 0.1", "warmup_steps: 10"))
    (line,) = [line for line in taken.lines if line.key == "warmup_steps"]
    assert line.to == "optim.warmup_ratio=0.1"
    assert line.said.endswith("give rows=N for the share; 0.1 is written")
    assert run.optim.warmup_ratio == 0.1
    _, taken = imported(tmp_path, AXOLOTL.replace("warmup_ratio: 0.1", "warmup_steps: 10\nmax_steps: 5"))
    assert "the run has 5 steps" in said_of(taken, "warmup_steps")


@pytest.mark.parametrize("command", ["import", "export", "doctor"])
def test_help_begins_with_the_usage(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: prefopt {command} ")


def test_lora_of_trl_is_taken_with_use_peft_and_has_no_effect_without(tmp_path: Path) -> None:
    run, _ = trl(tmp_path, use_peft=True, lora_r=32, lora_target_modules=["q_proj", "k_proj"])
    assert run.model.lora is not None
    assert (run.model.lora.r, run.model.lora.alpha, run.model.lora.dropout) == (32, 32.0, 0.05)
    assert run.model.lora.target_modules == ["q_proj", "k_proj"]
    run, taken = trl(tmp_path, lora_r=32)
    assert run.model.lora is None
    assert kind_of(taken, "lora_r") is Kind.WITHOUT


def test_constant_has_no_warm_up_and_an_unknown_schedule_is_said(tmp_path: Path) -> None:
    run, _ = trl(tmp_path, lr_scheduler_type="constant", warmup_ratio=0.1)
    assert (run.optim.schedule, run.optim.warmup_ratio) == ("constant", 0.0)
    run, taken = trl(tmp_path, lr_scheduler_type="polynomial")
    assert kind_of(taken, "lr_scheduler_type") is Kind.NONE
    assert run.optim.schedule == "cosine"


def test_deepspeed_is_known_by_the_name_of_its_file(tmp_path: Path) -> None:
    offloaded = trl(tmp_path, deepspeed="configs/ds_z3_offload_config.json")[0].deepspeed
    assert (offloaded.stage, offloaded.offload_device("optimizer")) == (3, "cpu")
    assert trl(tmp_path, deepspeed="zero2.json")[0].deepspeed.stage == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "holds no keys and values"),
        ("a: [1\n", "is not YAML"),
        ("learning: 1\n", "is no configuration of TRL, LLaMA-Factory or axolotl"),
        ("defaults:\n  - override /loss: dpo\nloss: {beta: 1}\n", "is a recipe of prefopt already"),
        ("model_name_or_path: a\nloss_type: kto_pair\n", "loss_type: 'kto_pair' has no equivalent"),
        ("model_name_or_path: a\nbeta: high\n", "a value is not what TRL takes there"),
        ("base_model: a\nrl: grpo\n", "rl: grpo has no equivalent"),
        ("stage: ppo\nfinetuning_type: full\n", "stage: ppo has no equivalent"),
    ],
)
def test_a_file_that_cannot_be_taken_is_refused_in_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "dpo.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        understand(file, Options())
    assert message in refused.value.message
    assert str(file) in refused.value.message


def test_a_trl_file_without_a_clue_needs_the_trainer(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("model_name_or_path: a\nbeta: 0.1\n")
    with pytest.raises(UserError, match="does not say which") as refused:
        understand(file, Options())
    assert refused.value.hint.startswith("trainer=")
    assert understand(file, Options(trainer="orpo"))[1].groups["loss"] == "orpo"


def test_the_command_writes_a_recipe_once_and_shows_every_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my dpo.yaml").write_text(HANDBOOK)
    assert main(["import", "my dpo.yaml", "processes=4"]) == 0
    said = capsys.readouterr().out
    written = Path("recipes/recipe/my_dpo.yaml")
    assert all(key in said for key in yaml.safe_load(HANDBOOK))
    assert "1 unknown" in said
    assert written.read_text().startswith("# @package _global_\n# TRL: my dpo.yaml\n# source: my dpo.yaml")
    assert "  # From beta: 0.01\n  beta: 0.01\n" in written.read_text()
    assert compose(["recipe=my_dpo"]).name == "my_dpo"
    assert main(["import", "my dpo.yaml"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["import", "my dpo.yaml", "proceses=4"]) == 2
    assert "did you mean 'processes'" in capsys.readouterr().err


def test_a_value_that_prefopt_refuses_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "dpo.yaml"
    file.write_text("model_name_or_path: a\nbeta: -1\n")
    with pytest.raises(UserError, match="what comes of it is refused"):
        import_file(file, tmp_path / "out.yaml", Options(), Console())
    assert not (tmp_path / "out.yaml").exists()


def test_numbers_are_written_so_that_yaml_reads_numbers() -> None:
    for value in (5e-7, 1e-6, 0.1, 3.0, 2.5e10, 1e-8):
        assert yaml.safe_load(flow(value)) == value
    check_composes("a", "# @package _global_\n# A\n# source: here.\n\noptim:\n  lr: 5.0e-07\n", Path("a"))
