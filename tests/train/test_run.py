"""Whole runs through the real command: the settings that people turn, each with a consequence that can be seen."""

from __future__ import annotations

import json
import os
import pty
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import environment, last_step, make_model, make_pairs, metrics, overrides, prefopt, start

from prefopt.train.timings import CUT_METRICS, TIMINGS


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("run")
    return make_model(folder / "model"), make_pairs(folder / "pairs.jsonl"), folder / "cache"


def run(material: tuple[Path, Path, Path], run_dir: Path, *more: str) -> str:
    model, pairs, cache = material
    result = prefopt(["train", *overrides(model, pairs, run_dir, *more)], cache)
    assert result.returncode == 0, result.stderr
    return result.stdout


def numbers(run_dir: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in metrics(run_dir)]


def test_a_signal_saves_and_the_same_command_goes_on(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, pairs, cache = material
    words = ["train", *overrides(model, pairs, tmp_path / "run", "train.epochs=200", "train.save_every=never")]
    process = start(words, cache)
    while last_step(tmp_path / "run") < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "stopped by a signal after step" in err
    assert not (tmp_path / "run" / "model").exists()
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert int(saved.name.removeprefix("step-")) == last_step(tmp_path / "run")


@pytest.mark.slow
def test_best_checkpoint_and_early_stop(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    more = ["loss=simpo", "optim.lr=0.3", "optim.schedule=constant", "train.eval_every=2", "train.epochs=50"]
    more += ["train.best_metric=eval/heldout/loss", "train.early_stop_patience=2", "train.keep_checkpoints=1"]
    out = run(material, tmp_path / "run", *more)
    assert "stopped early" in out
    losses = {m["step"]: m["eval/heldout/loss"] for m in metrics(tmp_path / "run") if "eval/heldout/loss" in m}
    trained = {step: loss for step, loss in losses.items() if step}
    best = min(trained, key=lambda step: trained[step])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["steps"] == best
    assert result["after"]["eval/heldout/loss"] == trained[best]
    assert max(losses) == best + 4
    assert (tmp_path / "run" / "checkpoints" / f"step-{best:08d}").is_dir()


@pytest.mark.slow
def test_a_metric_that_does_not_exist_is_refused_before_training(
    material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    model, pairs, cache = material
    more = ["train.best_metric=eval/heldout/lose"]
    result = prefopt(["train", *overrides(model, pairs, tmp_path / "run", *more)], cache)
    assert result.returncode == 2
    assert "eval/heldout/loss" in result.stderr
    assert last_step(tmp_path / "run") == 0


@pytest.mark.slow
@pytest.mark.long
def test_layout_checkpointing_and_token_budget_do_not_change_the_run(
    material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    run(material, tmp_path / "plain", "train.max_steps=5")
    variants = {
        "padded": ["model.layout=padded"],
        "checkpointed": ["model.checkpoint_every=1"],
        "small": ["train.tokens_per_micro_batch=1"],
    }
    for name, more in variants.items():
        run(material, tmp_path / name, "train.max_steps=5", *more)
        for got, expected in zip(numbers(tmp_path / name), numbers(tmp_path / "plain"), strict=True):
            both = [{k: v for k, v in line.items() if k not in CUT_METRICS} for line in (got, expected)]
            assert both[0] == pytest.approx(both[1], rel=2e-4, abs=1e-6), name


@pytest.mark.slow
def test_bfloat16_trains_and_reloads(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    for name, more in {"autocast": ["train.autocast=bf16"], "weights": ["model.dtype=bfloat16"]}.items():
        out = run(material, tmp_path / name, "loss=dpo", "train.max_steps=4", *more)
        assert "a fresh process finds the same log-probabilities" in out
        first = next(m for m in metrics(tmp_path / name) if m["step"] == 1)
        assert first["loss"] == pytest.approx(0.6931, abs=1e-3)


@pytest.mark.slow
def test_a_reference_of_its_own_is_scored_once(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    reference = make_model(tmp_path / "reference", seed=5)
    more = ["loss=dpo", f"model.reference={reference}", "train.max_steps=2"]
    out = run(material, tmp_path / "a", *more)
    assert "scoring the reference on 32 rows" in out
    before = json.loads((tmp_path / "a" / "result.json").read_text())["before"]
    assert before["eval/heldout/loss"] != pytest.approx(0.6931, abs=1e-4)
    assert "scoring" not in run(material, tmp_path / "b", *more, "loss.beta=0.5")


@pytest.mark.slow
def test_tensorboard_gets_the_metrics(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run(material, tmp_path / "run", "tracker=tensorboard", "train.max_steps=2")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = []
    for events in (tmp_path / "run").rglob("events.out*"):  # one file for the numbers, one for the settings
        accumulator = EventAccumulator(str(events))
        accumulator.Reload()
        if "loss" in accumulator.Tags()["scalars"]:
            seen += [s.value for s in accumulator.Scalars("loss")]
    logged = [m["loss"] for m in metrics(tmp_path / "run") if "lr" in m]
    assert len(logged) == 2
    assert seen == pytest.approx(logged, rel=1e-6)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["deepspeed=zero3", "fsdp=full_shard"])
def test_two_ranks_that_split_weights_save_adapters_that_are_not_empty(
    engine: str, material: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    more = ["loss=dpo", "model.lora.r=4", "launch.num_processes=2", "train.max_steps=3", "sample.count=3"]
    run(material, tmp_path / "run", *more, "sample.max_new_tokens=8", engine)
    assert len((tmp_path / "run" / "samples.jsonl").read_text(encoding="utf-8").splitlines()) == 3
    tensors = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
    assert len(tensors) == 2 * 7 * 2  # A and B of seven matrices in two layers
    assert all(t.numel() > 0 for t in tensors.values())
    assert any(t.abs().max() > 0 for n, t in tensors.items() if "lora_B" in n)


@pytest.mark.slow
@pytest.mark.long
def test_a_run_repeats_from_its_folder_alone(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, _, cache = material
    run(material, tmp_path / "run", "train.max_steps=3")
    result = prefopt(["train", "--repeat", str(tmp_path / "run"), f"dir={tmp_path / 'again'}"], cache)
    assert result.returncode == 0, result.stderr
    assert numbers(tmp_path / "again") == numbers(tmp_path / "run")
    refused = prefopt(["train", "--repeat", str(tmp_path / "run"), "optim.lr=1"], cache)
    assert refused.returncode == 2
    assert "another run" in refused.stderr


@pytest.mark.slow
def test_a_run_of_warm_up_alone_says_that_it_learns_nothing(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    out = run(material, tmp_path / "run", "train.max_steps=1", "optim.warmup_ratio=0.1")
    assert "nothing will be learned" in out
    assert [line["lr"] for line in metrics(tmp_path / "run") if "lr" in line] == [0]


@pytest.mark.slow
def test_a_terminal_sees_a_bar(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, pairs, cache = material
    words = ["train", *overrides(model, pairs, tmp_path / "run", "train.max_steps=6")]
    pid, terminal = pty.fork()
    if pid == 0:
        env = {**environment(cache), "TERM": "xterm-256color", "COLUMNS": "140"}
        env.pop("CI", None)  # under which no bar is drawn, and the tests may run
        os.execve(sys.executable, [sys.executable, "-m", "prefopt.cli", *words], env)
    seen = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    shown = seen.decode(errors="replace")
    assert "6/6" in shown
    assert "━" in shown
    assert "tokens/s" in shown
