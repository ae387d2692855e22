"""`recipe=quickstart`: a few steps in every test run; all of it, and a wheel in an empty environment, slowly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tiny import ROOT, environment, prefopt

from prefopt.losses import names


def test_a_few_steps_end_with_a_verified_model_and_a_report(tmp_path: Path) -> None:
    words = ["train", "recipe=quickstart", "train.max_steps=4", "sample.count=8", f"dir={tmp_path / 'run'}"]
    result = prefopt(words, tmp_path / "cache")
    assert result.returncode == 0, result.stderr
    for said in ("reward accuracy", "reward margin", "win rate", "asked before and after", "a fresh process finds"):
        assert said in result.stdout
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["after"]["eval/heldout/loss"] < found["before"]["eval/heldout/loss"]
    assert len((tmp_path / "run" / "samples.jsonl").read_text().splitlines()) == 8
    assert (tmp_path / "run" / "model" / "README.md").read_text().startswith("---\nbase_model:")
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = [s for s in steps if "lr" in s]
    assert [s["step"] for s in logged] == [1, 2, 3, 4]
    expected = {"epoch", "loss", "grad_norm", "tokens_per_second", "pairs_per_second", "peak_memory_bytes"}
    assert all(expected <= s.keys() for s in logged)
    again = prefopt(words, tmp_path / "cache")
    assert again.returncode == 0
    assert "is done" in again.stdout

    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model").num_parameters() > 200_000


@pytest.mark.slow
def test_the_whole_quickstart_teaches_manners_and_facts(tmp_path: Path) -> None:
    result = prefopt(["train", "recipe=quickstart", f"dir={tmp_path / 'run'}"], tmp_path / "cache")
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["before"]["eval/heldout/rewards/accuracy"] < 0.75
    assert found["after"]["eval/heldout/rewards/accuracy"] > 0.95
    from prefopt.demo.before_after import measure, read_samples

    samples = read_samples(tmp_path / "run" / "samples.jsonl")
    before = measure([(s.prompt, s.before, s.chosen) for s in samples])
    after = measure([(s.prompt, s.after, s.chosen) for s in samples])
    assert before.rude is not None
    assert before.rude > 0.4
    assert after.rude is not None
    assert after.rude < 0.1
    assert before.right is not None
    assert after.right is not None
    assert after.right > before.right + 0.15


@pytest.fixture(scope="module")
def demo_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all methods: the base model is made once."""
    return tmp_path_factory.mktemp("demo-cache")


UNMET = {"modpo": "the method needs margins"}
"""What the quickstart's pairs cannot serve, and what is said of it."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss", [pytest.param(name, marks=[pytest.mark.long] if place % 8 else []) for place, name in enumerate(names())]
)
def test_every_method_trains_on_the_quickstart_or_says_what_it_lacks(
    loss: str, demo_cache: Path, tmp_path: Path
) -> None:
    words = ["train", "recipe=quickstart", f"loss={loss}", "train.max_steps=2", "train.batch_size=8"]
    words += ["sample.count=0", "train.save_every=never", f"dir={tmp_path / 'run'}"]
    result = prefopt(words, demo_cache)
    if loss in UNMET:
        assert result.returncode == 2
        assert UNMET[loss] in result.stderr
        assert len(result.stderr.splitlines()) <= 3
        assert not (tmp_path / "run").exists()
        return
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["after"]["eval/heldout/loss"] != found["before"]["eval/heldout/loss"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_wheel_in_an_empty_environment_runs_the_quickstart(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "empty")], check=True)
    bin_dir = tmp_path / "empty" / "bin"
    pip = [str(bin_dir / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), str(wheel)], check=True)
    env = {**environment(tmp_path / "cache"), "PATH": os.environ["PATH"]}
    words = ["train", "recipe=quickstart", "train.max_steps=6", "sample.count=16"]
    result = subprocess.run(
        [str(bin_dir / "prefopt"), *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "a fresh process finds the same log-probabilities" in result.stdout
    assert "reward accuracy" in result.stdout
