"""`prefopt eval measure=preferences` in real processes: equal to training, whatever is killed, however it is shared."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import make_model, make_pairs, overrides, prefopt, start

from prefopt.errors import UserError
from prefopt.evaluate.measure import EvalPlace, Measured
from prefopt.evaluate.measures.preferences import Preferences
from prefopt.evaluate.settings import EvalSettings
from prefopt.evaluate.trained import open_trained

STORIES = Path(__file__).resolve().parents[3] / "shared" / "models" / "stories260K"
CPU = "device=cpu"


class Bed(NamedTuple):
    """A policy, a reference of other weights, 20 pairs and a cache."""

    policy: Path
    reference: Path
    pairs: Path
    cache: Path


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Bed:
    folder = tmp_path_factory.mktemp("bed")
    policy, reference = make_model(folder / "policy", 0), make_model(folder / "reference", 1)
    return Bed(policy, reference, make_pairs(folder / "pairs.jsonl", 20), folder / "cache")


@pytest.fixture(autouse=True)
def cache(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFOPT_CACHE", str(bed.cache))


def words(bed: Bed, out: Path, *more: str) -> list[str]:
    return [
        "eval",
        f"model={bed.policy}",
        f"reference={bed.reference}",
        f"measure.sets={{heldout: {bed.pairs}}}",
        "measure.loss={name: dpo, beta: 0.1}",
        "measure.chunk_size=2",
        "resamples=50",
        f"out={out}",
        CPU,
        *more,
    ]


def measure(bed: Bed, out: Path, **settings: Any) -> Measured:
    """The same in this process."""
    out.mkdir()
    measured = Preferences({"heldout": str(bed.pairs)}, {"name": "dpo", "beta": 0.1}, chunk_size=2)
    given = EvalSettings(reference=str(bed.reference), resamples=50, **settings)
    return measured(EvalPlace(given, out, str(bed.policy), None, "cpu"))


def figures(out: Path) -> dict[str, float]:
    found = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    return {name: figure["value"] for name, figure in found["figures"].items()}


@pytest.fixture(scope="module")
def plain(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    os.environ["PREFOPT_CACHE"] = str(bed.cache)
    found = measure(bed, tmp_path_factory.mktemp("plain") / "out").figures
    return {name: figure.value for name, figure in found.items()}


@pytest.mark.parametrize("budget", [1, 300])
def test_budget_of_tokens_does_not_change_the_figures(
    bed: Bed, plain: dict[str, float], tmp_path: Path, budget: int
) -> None:
    found = measure(bed, tmp_path / "out", tokens_per_batch=budget).figures
    assert {name: figure.value for name, figure in found.items()} == pytest.approx(plain, rel=1e-6, abs=1e-6)


@pytest.mark.slow
def test_two_processes_find_what_one_does_and_the_command_shows_it_again(
    bed: Bed, plain: dict[str, float], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = prefopt(words(bed, out, "num_processes=2"), bed.cache)
    assert done.returncode == 0, done.stderr
    assert figures(out) == pytest.approx(plain, rel=1e-6, abs=1e-6)
    assert "rewards/accuracy" in done.stdout
    assert "it estimates no KL divergence" in done.stdout
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()}
    again = prefopt(words(bed, out, "--json"), bed.cache)
    assert json.loads(again.stdout) == json.loads((out / "figures.json").read_text(encoding="utf-8"))
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()} == before
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert [row["id"] for row in rows] == [f"pairs.jsonl:{number}" for number in range(1, 21)]
    assert {"tokens", "logps", "mean_logp", "reference_logps", "reward"} == rows[0]["responses"][0].keys()
    assert sum(row["responses"][0]["logps"] for row in rows) / 20 == pytest.approx(plain["heldout/logps/chosen"])
    other = prefopt(words(bed, out, "seed=7"), bed.cache)
    assert other.returncode == 2
    assert "settings.seed: 42 -> 7" in other.stderr
    bed.pairs.touch()
    assert prefopt(words(bed, out), bed.cache).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_command_that_is_ended_goes_on_with_what_is_kept(
    bed: Bed, plain: dict[str, float], tmp_path: Path, how: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = start(words(bed, out), bed.cache)
    deadline = time.monotonic() + 120
    while not list(out.glob("scores/policy/heldout/*.npz")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, how)
    _, err = process.communicate(timeout=60)
    if how == signal.SIGTERM:
        assert process.returncode == 75, err
        assert "the same command goes on" in err
    assert not (out / "figures.json").exists()
    kept = {file: file.stat().st_mtime_ns for file in out.rglob("*.npz")}
    assert 0 < len(kept) < 20
    (out / "scores/policy/heldout/.00019.npz.tmp-1").touch()  # what a kill in the middle of a write leaves
    done = prefopt(words(bed, out), bed.cache)
    assert done.returncode == 0, done.stderr
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert figures(out) == pytest.approx(plain, rel=1e-6, abs=1e-6)
    assert not list(out.rglob(".*.tmp-*"))


@pytest.mark.slow
@pytest.mark.long
def test_figures_of_a_run_are_those_that_training_logged(bed: Bed, tmp_path: Path) -> None:
    if not STORIES.is_dir():
        pytest.skip("needs ../shared (real data and models), which is not beside this checkout")
    run = tmp_path / "run"
    trained = prefopt(
        ["train", *overrides(STORIES, bed.pairs, run, "loss=dpo", "train.epochs=1", "optim.lr=1e-4")], bed.cache
    )
    assert trained.returncode == 0, trained.stderr
    logged = json.loads((run / "result.json").read_text(encoding="utf-8"))["metrics"]
    done = prefopt(["eval", f"run={run}", "resamples=50", CPU], bed.cache)
    assert done.returncode == 0, done.stderr
    (out,) = (run / "eval").iterdir()
    found = figures(out)
    assert {name.removeprefix("eval/"): value for name, value in logged.items()} == pytest.approx(
        {name.removeprefix("eval/"): found[name.removeprefix("eval/")] for name in logged}, rel=1e-5, abs=1e-5
    )
    assert found["heldout/logratio/chosen"] * 0.1 == pytest.approx(found["heldout/rewards/chosen"])
    # Other data, the method and the reference still the run's.
    more = ["eval", f"run={run}", f"measure.sets={{other: {bed.pairs}}}", f"out={tmp_path / 'o'}", "resamples=50", CPU]
    assert prefopt(more, bed.cache).returncode == 0
    assert figures(tmp_path / "o")["other/loss"] > 0


def test_reward_model_is_known_by_its_head_and_judged_by_category(bed: Bed, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path / "reward"
    config = AutoConfig.from_pretrained(bed.policy, num_labels=1, trust_remote_code=False)
    config.pad_token_id = None
    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False).eval()
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(bed.policy, trust_remote_code=False)
    tokenizer.save_pretrained(folder)
    rows = [json.loads(line) for line in bed.pairs.read_text(encoding="utf-8").split("\n")[:-1]]
    file = tmp_path / "rows.jsonl"
    kinds = ["even", "odd"]
    file.write_text("".join(json.dumps({**row, "kind": kinds[n % 2]}) + "\n" for n, row in enumerate(rows)))
    out = tmp_path / "out"
    out.mkdir()
    measured = Preferences({"bench": {"path": str(file), "category": "kind"}})
    found = measured(EvalPlace(EvalSettings(resamples=50), out, str(folder), None, "cpu"))

    def reward(row: dict[str, str], side: str) -> float:
        ids = tokenizer(row["prompt"], add_special_tokens=True)["input_ids"]
        ids = [*ids, *tokenizer(row[side], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids])).logits.item()

    def of(name: str) -> float:
        return found.figures[name].value

    assert found.rows[0]["responses"][0]["reward"] == pytest.approx(reward(rows[0], "chosen"), abs=1e-5)
    right = [reward(row, "chosen") > reward(row, "rejected") for row in rows]
    assert of("bench/rewards/accuracy/even") == pytest.approx(sum(right[::2]) / 10)
    assert of("bench/rewards/accuracy/odd") == pytest.approx(sum(right[1::2]) / 10)
    assert of("bench/rewards/accuracy/categories") == pytest.approx(sum(right) / 20)
    assert "bench/logps/chosen" not in found.figures
    assert "logps" not in found.rows[0]["responses"][0]
    assert found.rows[1]["category"] == "odd"


def test_kl_is_that_of_the_whole_distributions_along_each_response(bed: Bed, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    measured = Preferences({"heldout": str(bed.pairs)}, kl=True, chunk_size=3)
    (tmp_path / "out").mkdir()
    given = EvalSettings(reference=str(bed.reference), resamples=50)
    found = measured(EvalPlace(given, tmp_path / "out", str(bed.policy), None, "cpu"))
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(one, trust_remote_code=False) for one in (bed.policy, bed.reference)
    )
    tokenizer = AutoTokenizer.from_pretrained(bed.policy, trust_remote_code=False)

    def kl(row: dict[str, str], side: str) -> tuple[float, int]:
        prompt = tokenizer(row["prompt"], add_special_tokens=True)["input_ids"]
        response = [*tokenizer(row[side], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        ids = torch.tensor([[*prompt, *response]])
        with torch.no_grad():
            p, q = (one(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for one in (policy, reference))
        return (p.exp() * (p - q)).sum().item(), len(response)

    rows = [json.loads(line) for line in bed.pairs.read_text(encoding="utf-8").split("\n")[:-1]]
    for side, place in (("chosen", 0), ("rejected", 1)):
        sums, tokens = zip(*(kl(row, side) for row in rows), strict=True)
        assert found.figures[f"heldout/kl/{side}"].value == pytest.approx(sum(sums) / 20, rel=1e-4)
        assert found.figures[f"heldout/kl_per_token/{side}"].value == pytest.approx(sum(sums) / sum(tokens), rel=1e-4)
        assert [row["responses"][place]["kl"] for row in found.rows] == pytest.approx(sums, rel=1e-4)
    assert any(note.startswith("kl: KL(model || reference)") for note in found.notes)


def test_kl_needs_a_reference_and_a_language_model(bed: Bed, tmp_path: Path) -> None:
    assert Preferences({"a": str(bed.pairs)}, kl=True).needs == {"model", "reference"}
    done = prefopt(
        ["eval", f"model={bed.policy}", f"measure.sets={{a: {bed.pairs}}}", "measure.kl=true", f"out={tmp_path / 'o'}"],
        bed.cache,
    )
    assert done.returncode == 2
    assert "reference" in done.stderr
    assert not (tmp_path / "o").exists()


def refused(bed: Bed, out: Path, sets: dict[str, Any], **measure: Any) -> str:
    out.mkdir(exist_ok=True)
    with pytest.raises(UserError) as caught:
        Preferences(sets, **measure)(EvalPlace(EvalSettings(), out, str(bed.policy), None, "cpu"))
    assert "\n" not in caught.value.message
    assert not list(out.iterdir())
    return caught.value.message


def test_what_does_not_go_together_is_refused_in_a_sentence(bed: Bed, tmp_path: Path) -> None:
    sets = {"a": str(bed.pairs)}
    said = refused(bed, tmp_path / "out", sets, loss={"name": "reward_bt"})
    assert said == f"measure.loss: reward_bt is of reward models, and {bed.policy} is a language model"
    said = refused(bed, tmp_path / "out", sets, max_length=300)
    assert said == "measure.max_length=300: the model has 256 positions"
    alone = tmp_path / "alone.jsonl"
    alone.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n", encoding="utf-8")
    said = refused(bed, tmp_path / "out", {"a": str(alone)})
    assert "the method needs pairs, which these rows" in said


@pytest.mark.slow
def test_file_that_there_is_not_is_named_and_leaves_no_folder(bed: Bed, tmp_path: Path) -> None:
    done = prefopt(
        ["eval", f"model={bed.policy}", "measure.sets={a: no.jsonl}", f"out={tmp_path / 'o'}", CPU], bed.cache
    )
    assert done.returncode == 2
    assert "no.jsonl: no such file" in done.stderr
    assert not (tmp_path / "o").exists()


def run_folder(folder: Path, bed: Bed, **files: str) -> Path:
    import yaml

    folder.mkdir()
    for name, text in {"run.yaml": yaml.safe_dump({"model": {"path": str(bed.policy)}}), **files}.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return folder


def test_run_that_is_not_done_is_refused_with_how_it_stands(bed: Bed, tmp_path: Path) -> None:
    from prefopt.lock import locked

    def said(folder: Path) -> str:
        with pytest.raises(UserError) as caught:
            open_trained(str(folder))
        return caught.value.message

    folder = run_folder(tmp_path / "a", bed)
    assert said(folder) == f"run={folder}: the run did not come to its end: there is no result.json"
    with locked(folder):
        assert said(folder) == f"run={folder}: the run still goes on (process {os.getpid()})"
    failed = json.dumps({"exit_code": 1, "message": "step 3: the loss is not finite\n  look at the rows"})
    folder = run_folder(tmp_path / "b", bed, exit_json=failed)
    assert said(folder) == f"run={folder}: the run failed: step 3: the loss is not finite"
    folder = run_folder(tmp_path / "c", bed, exit_json=json.dumps({"exit_code": 75, "message": "stopped"}))
    assert said(folder) == f"run={folder}: the run was stopped before its end"
    folder = run_folder(tmp_path / "d", bed, result_json="{}")
    assert said(folder) == f"run={folder}: the run is done, but its folder model is gone"
    assert said(tmp_path / "e") == f"run={tmp_path / 'e'}: there is no such folder"
    assert said(bed.policy) == f"run={bed.policy}: this is no folder of prefopt train"


def test_model_and_reference_of_a_run_are_its_final_model_and_its_start(bed: Bed, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", bed, result_json="{}")
    (folder / "model").mkdir()
    trained = open_trained(str(folder))
    assert trained.model == str(folder / "model")
    assert trained.reference == (str(bed.policy), None)


def test_dry_run_writes_nothing(bed: Bed, tmp_path: Path) -> None:
    done = prefopt(words(bed, tmp_path / "out", "--dry-run"), bed.cache)
    assert done.returncode == 0, done.stderr
    assert "nothing is written" in done.stdout
    assert not (tmp_path / "out").exists()
