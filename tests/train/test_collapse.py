"""A model that no longer writes is seen while it is trained: the numbers by hand, the runs by the real command."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from poison import strict
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import kill_at_step, make_model, overrides, prefopt

from prefopt.settings import SampleSettings
from prefopt.train.collapse import drift, measure, repetition, what_collapsed
from prefopt.train.sample import Answer, _answer
from prefopt.train.timings import TIMINGS

NUM_STEPS = 16
WATCHED = ["loss=dpo", "sample.count=6", "sample.max_new_tokens=40", "sample.every=4", "train.eval_every=4"]
NORMAL, RUINOUS = "optim.lr=1e-3", "optim.lr=0.5"


@pytest.mark.parametrize(
    ("tokens", "share"),
    [
        ([], 0.0),
        ([7, 7, 7], 0.0),
        ([7, 7, 7, 7], 0.0),  # one 4-gram
        ([7] * 5, 1 / 2),
        ([7] * 10, 6 / 7),
        ([1, 2] * 5, 5 / 7),  # 1212 and 2121
        (list(range(20)), 0.0),
        ([1, 2, 3, 4, 9, 1, 2, 3, 4], 1 / 6),
        ([1, 2, 3, 9, 1, 2, 3], 0.0),  # three tokens are no repetition
    ],
)
def test_repetition_is_the_share_of_4_grams_that_were_there_before(tokens: list[int], share: float) -> None:
    assert repetition(tokens) == pytest.approx(share)


def test_numbers_are_means_over_answers() -> None:
    answers = [Answer("", [7] * 10, False), Answer("", [1, 2, 3], True), Answer("", [], True)]
    found = measure(answers)
    assert found == {
        "length": pytest.approx((10 + 4 + 1) / 3),
        "stopped": pytest.approx(2 / 3),
        "repetition": pytest.approx(6 / 7 / 3),
    }


def test_an_answer_ends_at_the_first_token_that_ends_one() -> None:
    assert _answer("ab", [5, 6, 1, 1, 0], {1, 9}) == Answer("ab", [5, 6], True)
    assert _answer("ab", [5, 9, 1], {1, 9}) == Answer("ab", [5], True)
    assert _answer("ab", [5, 6], {1, 9}) == Answer("ab", [5, 6], False)
    assert _answer("", [1, 0, 0], {1}) == Answer("", [], True)


def test_drift_is_in_nats_and_in_nats_per_token_of_the_first_set() -> None:
    before = {"eval/a/logps/chosen": -30.0, "eval/a/length/chosen": 12.0, "eval/b/logps/chosen": -1.0}
    latest = {"eval/a/logps/chosen": -48.0, "eval/a/length/chosen": 12.0, "eval/b/logps/chosen": -2.0}
    assert drift(before, latest) == {"drift": -18.0, "drift_per_token": -1.5}
    labels = {"eval/a/logps/desirable": -30.0, "eval/a/length/desirable": 10.0}
    assert drift(labels, {**labels, "eval/a/logps/desirable": -25.0}) == {"drift": 5.0, "drift_per_token": 0.5}
    assert drift({}, {}) == {}
    assert drift({"eval/a/rewards/chosen": 1.0}, {"eval/a/rewards/chosen": 1.0}) == {}


def test_limits_are_passed_beyond_and_not_at_them() -> None:
    limits = SampleSettings(max_repetition=0.5, max_drift=1.0)
    assert what_collapsed({"repetition": 0.5, "drift_per_token": -1.0}, limits) == ""
    assert what_collapsed({"repetition": 0.1, "drift_per_token": 5.0}, limits) == ""
    assert what_collapsed({"repetition": 0.1}, limits) == ""
    said = what_collapsed({"repetition": 0.9, "drift_per_token": -3.25}, limits)
    assert "90 % of an answer's 4-grams" in said
    assert "sample.max_repetition=0.5" in said
    assert "fell by 3.25 nats per token (sample.max_drift=1)" in said


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Pairs of random letters, so that a model which has learned them does not repeat itself."""
    folder = tmp_path_factory.mktemp("collapse")
    pairs, letters = folder / "pairs.jsonl", random.Random(0)
    with open(pairs, "w", encoding="utf-8") as out:
        for number in range(40):
            chosen, rejected = ("".join(letters.choices(half, k=30)) for half in ("abcdefghijklm", "nopqrstuvwxyz"))
            out.write(json.dumps({"prompt": f"{number}: say", "chosen": chosen, "rejected": rejected}) + "\n")
    return make_model(folder / "model"), pairs, folder / "cache"


def words_for(material: tuple[Path, Path, Path], run_dir: Path, *more: str) -> list[str]:
    model, pairs, _ = material
    return ["train", *overrides(model, pairs, run_dir, *WATCHED, *more)]


def lines(run_dir: Path) -> list[dict[str, Any]]:
    text = (run_dir / "metrics.jsonl").read_text(encoding="utf-8")
    return [{k: v for k, v in strict(line).items() if k not in TIMINGS} for line in text.splitlines()]


def samples(run_dir: Path) -> dict[int, dict[str, float]]:
    """The numbers about answers by step."""
    return {line["step"]: line for line in lines(run_dir) if "samples/length" in line}


@pytest.mark.slow
def test_a_ruinous_learning_rate_is_seen_and_the_normal_one_is_not(
    material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    said = {}
    for name, rate in (("normal", NORMAL), ("ruinous", RUINOUS)):
        result = prefopt(words_for(material, tmp_path / name, rate), material[2])
        assert result.returncode == 0, result.stderr
        said[name] = result.stdout
    normal, ruinous = samples(tmp_path / "normal"), samples(tmp_path / "ruinous")
    assert list(normal) == list(ruinous) == [0, 4, 8, 12, 16]
    assert normal[0] == ruinous[0]
    assert "collapses" not in said["normal"]
    assert all(line["samples/collapsed"] == 0.0 for line in normal.values())
    assert "step 16: the model collapses: " in said["ruinous"]
    assert ruinous[16]["samples/collapsed"] == 1.0
    last = ruinous[16]
    assert last["samples/repetition"] > 0.5 or last["samples/drift_per_token"] < -1.0
    evaluations = {line["step"]: line for line in lines(tmp_path / "ruinous") if "eval/heldout/loss" in line}
    chosen = {step: line["eval/heldout/logps/chosen"] for step, line in evaluations.items()}
    assert last["samples/drift"] == pytest.approx(chosen[16] - chosen[0])
    assert last["samples/drift_per_token"] == pytest.approx((chosen[16] - chosen[0]) / 31)  # 30 letters and EOS
    assert (tmp_path / "ruinous" / "model").is_dir()  # a warning is a warning


@pytest.mark.slow
@pytest.mark.long
def test_stop_ends_without_a_model_and_keeps_what_was_there(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    saving = [RUINOUS, "train.save_every=2", "train.keep_checkpoints=1", "train.best_metric=eval/heldout/loss"]
    words = words_for(material, run_dir, *saving, "sample.on_collapse=stop")
    result = prefopt(words, material[2])
    assert result.returncode == 1, result.stdout
    assert "Traceback" not in result.stderr
    (step,) = [step for step, line in samples(run_dir).items() if line["samples/collapsed"]]
    complaint = result.stderr[result.stderr.index("prefopt: ") :]
    assert f"the model has collapsed at step {step}: " in complaint
    assert "sample.on_collapse=warn goes on from here" in complaint
    assert len(complaint.strip().splitlines()) <= 3
    saved = sorted(p.name for p in (run_dir / "checkpoints").iterdir())
    assert saved[-1] == f"step-{step:08d}"
    assert f"step-{step - 2:08d}" in saved  # though only one is to be kept
    for absent in ("model", "unverified-model", "result.json"):
        assert not (run_dir / absent).exists()
    assert len((run_dir / "samples.jsonl").read_text(encoding="utf-8").splitlines()) == 6
    before = {p: p.read_bytes() for p in (run_dir / "checkpoints").rglob("*") if p.is_file()}

    again = prefopt(words, material[2])
    assert again.returncode == 1
    assert complaint.splitlines()[0] in again.stderr
    assert {p: p.read_bytes() for p in (run_dir / "checkpoints").rglob("*") if p.is_file()} == before

    result = prefopt([*words, "sample.on_collapse=warn"], material[2])
    assert result.returncode == 0, result.stderr
    assert f"resuming after step {step} " in result.stdout
    assert (run_dir / "model").is_dir()


@pytest.mark.slow
def test_a_limit_that_the_start_is_beyond_is_said_before_training(
    material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    more = ["sample.max_repetition=0", "sample.temperature=0", "sample.on_collapse=stop"]
    result = prefopt(words_for(material, tmp_path / "run", *more), material[2])
    assert result.returncode == 1, result.stdout
    assert "before training the model already is beyond a limit: " in result.stderr
    assert "sample.temperature" in result.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.long
def test_watching_changes_nothing_and_survives_a_kill(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    adapters = ["model.lora={r: 4, dropout: 0.2}", "train.save_every=3"]  # dropout draws random numbers
    plain, straight, killed = (tmp_path / name for name in ("plain", "straight", "killed"))
    assert prefopt([*words_for(material, plain, *adapters), "sample.every=never"], material[2]).returncode == 0
    assert prefopt(words_for(material, straight, *adapters), material[2]).returncode == 0
    trained = [[line for line in lines(run_dir) if "samples/length" not in line] for run_dir in (plain, straight)]
    assert trained[0] == trained[1]
    words = words_for(material, killed, *adapters)
    for moment in sorted(random.SystemRandom().sample(range(1, NUM_STEPS - 1), 2)):
        kill_at_step(words, material[2], killed, moment)
    result = prefopt(words, material[2])
    assert result.returncode == 0, result.stderr
    assert lines(killed) == lines(straight)
    file = Path("model") / "adapter_model.safetensors"
    assert (plain / file).read_bytes() == (straight / file).read_bytes() == (killed / file).read_bytes()
    for name in ("samples.jsonl", "samples_before.json"):
        assert (plain / name).read_bytes() == (straight / name).read_bytes() == (killed / name).read_bytes()
    assert load_file(killed / file)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("engine", ["deepspeed=zero3", "fsdp=full_shard"])
def test_two_ranks_that_split_weights_are_watched_too(
    engine: str, material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    more = [engine, "launch.num_processes=2", "train.max_steps=8", RUINOUS, "sample.on_collapse=stop"]
    result = prefopt(words_for(material, tmp_path / "run", *more), material[2])
    assert result.returncode == 1, result.stdout
    assert "the model has collapsed at step " in result.stderr
    assert "Traceback" not in result.stderr
    assert list(samples(tmp_path / "run"))[:2] == [0, 4]
    assert not (tmp_path / "run" / "model").exists()
