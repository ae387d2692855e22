"""`prefopt plan` as a user meets it: offline, at 80 columns, and in JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from recipe_table import header, recipes
from tiny import make_model, make_pairs, overrides

from prefopt.cli import main
from prefopt.config import compose
from prefopt.plan.published import DATA_SETS, MODELS

SIMPO = ["recipe=simpo_llama3_instruct", "launch.num_nodes=4", "launch.gpus_per_node=8"]
RECIPES = sorted(name for name, _ in recipes() if name != "quickstart")
ONE_OF_A_MODEL = list({compose([f"recipe={name}"]).model.path: name for name in RECIPES}.values())
GIB = 2**30


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "cache"))


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["plan", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_issues_command_is_a_page_of_80_columns_and_writes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefopt.cli", "plan", *SIMPO],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    said = " ".join(done.stdout.split())
    for words in (
        "4 nodes of 8 x h100, 32 ranks, ZeRO-3",
        "8,030,261,248 parameters, all trained (published config.json",
        "59,876 rows, 1,961 held out",
        "468 steps of 128 pairs",
        "fits:",
        "tokens/s",
        "40% of 989 TFLOP/s",
        "the GPU is an h100; another: --gpu NAME",
    ):
        assert words in said
    assert list(tmp_path.iterdir()) == []


def test_what_is_more_than_there_is_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--rows", "45", "--prompt-tokens", "10", "--response-tokens", "10")
    assert planned(capsys, *SIMPO, "train.max_steps=9", *few)["notes"] == [
        "train.batch_size=128 is more than the 45 pairs: every step takes all of them, one step an epoch",
        "train.max_steps=9 is not reached: train.epochs=1 ends after step 1",
    ]
    assert planned(capsys, *SIMPO)["notes"] == []


def test_states_of_eight_billion_weights_on_32_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, *SIMPO, "--gpu", "a100-80", "--mfu", "0.5")
    count = 8_030_261_248
    memory = found["memory"]["train"]
    held = [memory[part] for part in ("weights", "gradients", "masters", "optimiser")]
    assert held == [round(count * size / 32) for size in (2, 2, 4, 8)]
    assert memory["total"] == sum(memory[part] for part in memory if part not in ("total", "host", "moment"))
    assert found["sent_in_a_step"] == {"gradients": round(2 * count * 31 / 32), "weights": round(4 * count * 31 / 32)}
    assert found["disk"]["checkpoint"] == 14 * count
    assert found["disk"]["model"] == 2 * count
    assert found["place"]["operations_per_second_of_a_rank"] == 156e12
    assert found["verdict"]["word"] == "fits"
    step = found["step"]
    assert step["tokens"] == 128 * (185 + 2 * 304)
    assert step["tokens_per_second"] == pytest.approx(step["tokens"] / step["seconds"])
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert list(stages) == ["prepare", "train step", "evaluate", "save"]
    assert found["seconds"] == pytest.approx(sum(stage["total_seconds"] for stage in found["stages"]))


def test_a_reference_is_scored_before_and_adapters_make_it_small(capsys: pytest.CaptureFixture[str]) -> None:
    full = planned(capsys, "recipe=dpo_zephyr", "launch.num_processes=8")
    assert [stage["name"] for stage in full["stages"]][1] == "score"
    assert full["disk"]["columns"] == 8 * 2 * (61_135 + 2000)
    adapters = planned(capsys, "recipe=dpo_zephyr", "launch.num_processes=8", "model.lora={r: 16}")
    assert adapters["model"]["trainable"] == 41_943_040
    assert adapters["disk"]["checkpoint"] < full["disk"]["checkpoint"] / 100
    assert adapters["memory"]["train"]["total"] < full["memory"]["train"]["total"]


@pytest.mark.parametrize(
    "recipe",
    [
        name if name in ONE_OF_A_MODEL else pytest.param(name, marks=[pytest.mark.slow, pytest.mark.long])
        for name in RECIPES
    ],
)
def test_every_recipe_fits_the_machine_it_names_by_an_offline_plan(
    recipe: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = compose([f"recipe={recipe}"])
    assert run.model.path in MODELS
    sources = (*run.data.train, *run.data.eval.values())
    own = [source.path for source in sources if source.path.endswith(".jsonl")]  # that a user writes first
    assert all(source.split in DATA_SETS[source.path].splits for source in sources if source.path not in own)
    for margin in run.data.margins:
        if margin.path is not None:
            make_model(tmp_path / margin.path)
    capsys.readouterr()  # libraries that are imported for it say things
    rows = ["--rows", "20000", "--prompt-tokens", "60", "--response-tokens", "100"] if own else []
    machine = header(dict(recipes())[recipe]).machine
    where = [f"launch.num_nodes={machine.nodes}", f"launch.gpus_per_node={machine.gpus}", "--gpu", machine.name]
    found = planned(capsys, f"recipe={recipe}", *where, *rows)
    assert found["verdict"]["word"] == "fits"
    assert found["step"]["tokens_per_second"] > 0


def test_of_experts_a_token_pays_for_those_that_it_sees() -> None:
    """Mixtral 8x22B, by hand: 141 billion weights, of which a token passes through two of eight experts a layer."""
    from prefopt.plan.shape import model_shape
    from prefopt.settings import ModelSettings

    shape = model_shape(ModelSettings(path="mistral-community/Mixtral-8x22B-v0.1"))
    expert = 3 * 6144 * 16_384
    attention = 2 * 6144 * 6144 + 2 * 6144 * 1024
    assert shape.total == 56 * (8 * expert + attention + 8 * 6144 + 2 * 6144) + 2 * 32_000 * 6144 + 6144
    assert 0 <= shape.in_layers - 56 * (2 * expert + attention) <= 56 * 8 * 6144  # the router is linear or is not


def test_what_does_not_fit_is_told_what_would_help(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model=mistral_7b", "data=ultrafeedback_binarized", "loss=simpo", "launch.num_processes=8"]
    verdict = planned(capsys, *words, "--gpu", "l40s")["verdict"]
    assert verdict["word"] == "does not fit"
    assert verdict["needed"] > 16 * 7_241_732_096  # weights, gradients, masters and states of DDP
    advice = dict(line.split(": ", 1) for line in verdict["advice"] if line.count(": ") == 1)
    assert advice["deepspeed=zero3"].endswith(("fits", "tight", "does not fit"))
    assert advice["all that change no number, together"].endswith(", fits")
    (adapted,) = [line for line in verdict["advice"] if line.startswith("all that and model.lora={r: 16}: ")]
    assert adapted.endswith(", fits")
    changed = planned(capsys, *words, "--gpu", "l40s", "deepspeed=zero3", "model.checkpoint_every=1")
    assert changed["verdict"]["word"] == "fits"
    assert main(["plan", *words, "--gpu", "l40s"]) == 0
    assert "does not fit" in capsys.readouterr().out


def test_a_recipe_for_four_gpus_that_one_cannot_hold_is_said_to_fit_four(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = planned(capsys, "recipe=simpo_llama3_instruct")["verdict"]
    assert verdict["word"] == "does not fit"
    (four,) = [line for line in verdict["advice"] if line.startswith("launch.gpus_per_node=4: ")]
    assert four.endswith(" GiB, fits")
    needed = planned(capsys, "recipe=simpo_llama3_instruct", "launch.gpus_per_node=4")["verdict"]["needed"] / 2**30
    assert float(four.split()[1]) == pytest.approx(needed, abs=1)


def test_rows_that_cannot_be_counted_for_want_of_a_tokenizer_are_not_said_to_be_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    assert main(["plan", "recipe=simpo_llama3_instruct", f"data.train=[{{path: {rows}}}]", "data.eval={}"]) == 2
    said = capsys.readouterr().err
    assert "no tokenizer of meta-llama/Meta-Llama-3-8B-Instruct is here" in said
    assert "--rows N" in said


def test_rows_of_this_machine_are_cut_as_the_run_cuts_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = overrides(make_model(tmp_path / "model"), make_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run")
    assert main(["train", *words, "--dry-run"]) == 0
    dry = capsys.readouterr().out
    found = planned(capsys, *words)
    assert f"steps: {found['steps']} of 4 pairs" in dry
    assert f"tokens a step: {found['step']['tokens']} on average" in dry
    assert found["place"] | {"ranks": 1, "device": "cpu"} == found["place"]
    assert found["engine"] == "one process"
    assert not any("rows alike" in sentence for sentence in found["assumed"])
    given = planned(capsys, *words, "--rows", "400", "--prompt-tokens", "20", "--response-tokens", "30")
    assert given["steps"] == 2 * (400 - 8) // 4
    assert given["step"]["tokens"] == 4 * (20 + 2 * 29)


def test_a_config_alone_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_model(tmp_path / "model")
    folder = tmp_path / "config alone"
    folder.mkdir()
    (folder / "config.json").write_text((made / "config.json").read_text())
    words = ["--rows", "64", "--prompt-tokens", "20", "--response-tokens", "30", "loss=dpo", "train.batch_size=8"]
    found = planned(capsys, f"model.path={folder}", "data.train=[{path: not/here}]", *words)
    assert found["steps"] == 8
    assert found["model"]["source"] == str(folder / "config.json")


def test_the_quickstart_is_planned_on_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, "recipe=quickstart")
    assert found["model"]["path"] == "demo://manners/base"
    assert (found["steps"], found["verdict"]["word"]) == (94, "fits")


OWN = ["model.path=mistralai/Mistral-7B-v0.1", "loss=simpo"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*SIMPO, "--gpu", "h10"], "--gpu: 'h10' is not known\n  did you mean 'h100'"),
        ([*SIMPO, "--mfu", "40"], "--mfu must be above 0 and at most 1, not 40"),
        ([*SIMPO, "--rows", "0"], "--rows must be 1 or more"),
        ([*SIMPO, "--prompt-tokens", "2000"], "more than data.max_length=2048"),
        (["recipe=simpo_llama3_instruct", "launch.device=cpu", "--gpu", "h100"], "has no effect"),
        ([*SIMPO, "model.path=nobody/nothing-7b"], "nothing is known of nobody/nothing-7b"),
        (
            [*SIMPO, "model.path=meta-llama/Meta-Llama-3-8B-Instrct"],
            "did you mean 'meta-llama/Meta-Llama-3-8B-Instruct'",
        ),
        ([*SIMPO, "launch.num_nodes=64"], "train.batch_size=128 is less than the 512 processes"),
        ([*OWN, "data.train=[{path: somebody/pairs}]"], "--rows N"),
        (
            [*OWN, "data.train=[{path: somebody/pairs}]", "--rows", "9"],
            "--rows N --prompt-tokens P --response-tokens R",
        ),
        ([*SIMPO, "--ros", "9"], "did you mean '--rows'"),
    ],
)
def test_misuse_is_one_sentence_and_exit_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
