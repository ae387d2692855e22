"""lm-evaluation-harness on a tiny task of our own: its numbers, unchanged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prefopt.errors import UserError
from prefopt.evaluate.harness_run import Asked, hash_of, measured
from prefopt.evaluate.measure import EvalPlace, Measured
from prefopt.evaluate.measures.harness import Harness
from prefopt.evaluate.settings import EvalSettings

MODEL = Path(__file__).resolve().parents[3] / "shared" / "models" / "stories260K"
ASKED = Asked(["tiny"], 1, 2, None, 8, False)
RESULTS = {
    "results": {
        "tiny": {
            "alias": "tiny",
            "acc,none": 0.5,
            "acc_stderr,none": 0.25,
            "exact_match,strict": 0.25,
            "sample_len": 2,
        },
        "all": {"alias": "all", "acc,none": 0.5, "acc_stderr,none": "N/A", "sample_len": 2},
    },
    "n-samples": {"tiny": {"original": 9, "effective": 2}},
    "group_subtasks": {"all": ["tiny"]},
    "n-shot": {"tiny": 0},
    "versions": {"tiny": 1.0},
    "higher_is_better": {"tiny": {"acc": True}},
    "samples": {
        "tiny": [
            {"doc_id": 0, "filter": "none", "metrics": ["acc"], "acc": 1.0}
            | dict.fromkeys(("doc_hash", "prompt_hash", "target_hash"), "ab")
        ]
    },
}


def write_task(folder: Path) -> None:
    """Eight beginnings of stories with two endings each."""
    endings = ("sad", "very happy")
    rows = [
        {
            "q": f"Once upon a time, there was a little {who}. The {who} was",
            "a": endings[i % 2],
            "b": endings[1 - i % 2],
        }
        for i, who in enumerate(["girl", "boy", "dog", "cat", "bird", "frog", "bear", "fish"])
    ]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tiny.yaml").write_text(f"""
task: prefopt_tiny
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{q}}}}"
doc_to_target: 0
doc_to_choice: "{{{{[a, b]}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: brier_score
    aggregation: brier_score
    higher_is_better: false
metadata:
  version: 1.0
""")


def measure(settings: Harness, tmp_path: Path, model: Path = MODEL, chat_template: str | None = None) -> Measured:
    return settings(EvalPlace(EvalSettings(chat_template=chat_template), tmp_path, str(model), None, "cpu"))


def test_results_become_figures_with_standard_errors_and_counts() -> None:
    found = measured(RESULTS, ASKED, "0.4.13")
    figure = found.figures["tiny/acc"]
    assert (figure.value, figure.low, figure.high, figure.count) == (0.5, pytest.approx(0.01), pytest.approx(0.99), 2)
    assert found.figures["tiny/exact_match/strict"].low is None
    assert (found.figures["all/acc"].low, found.figures["all/acc"].count) == (None, 2)
    assert "all/sample_len" not in found.figures
    assert found.rows == [{"id": "tiny:0", "task": "tiny", "acc": 1.0}]


def test_notes_say_version_hash_and_what_had_no_effect() -> None:
    notes = "\n".join(measured(RESULTS, ASKED, "0.4.13").notes)
    assert "lm-evaluation-harness 0.4.13" in notes
    assert f"tiny: version 1.0, 0 examples, hash {hash_of(RESULTS['samples']['tiny'])}" in notes
    assert "measure.num_fewshot=1 had no effect" in notes
    assert "at most 2 documents of each task" in notes


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "tasks must be given"),
        ({"tasks": ["a", "a"]}, "tasks must be different ones"),
        ({"tasks": ["a"], "num_fewshot": -1}, "num_fewshot must be 0 or more, not -1"),
        ({"tasks": ["a"], "limit": 0}, "limit must be 1 or more"),
        ({"tasks": ["a"], "batch_size": 0}, "batch_size must be 1 or more, not 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Harness(**settings)


def test_without_the_harness_a_sentence_says_what_to_install(tmp_path: Path) -> None:
    # In a Python that sees our package alone: -S leaves site-packages out.
    code = (
        "from pathlib import Path; from prefopt.errors import UserError\n"
        "from prefopt.evaluate.measures.harness import Harness; from prefopt.evaluate.measure import EvalPlace\n"
        "try: Harness(tasks=['a'])(EvalPlace(None, Path('.'), 'm', None, 'cpu'))\n"
        "except UserError as error: print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.stdout.splitlines() == [
        "measure=harness needs lm-evaluation-harness, which is not installed",
        "  pip install 'prefopt[harness]'",
    ], done.stderr


def test_a_folder_of_tasks_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    with pytest.raises(UserError, match=r"measure\.include_path: there is no folder"):
        measure(Harness(["x"], include_path=str(tmp_path / "none")), tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not MODEL.is_dir(), reason="needs ../shared/models/stories260K")
def test_a_task_of_our_own_has_the_harness_s_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_task(tmp_path)
    settings = Harness(["prefopt_tiny"], include_path=str(tmp_path), batch_size=4)
    found = measure(settings, tmp_path)
    figure = found.figures["prefopt_tiny/acc"]
    assert 0 < figure.value < 1
    assert figure.low is not None
    assert 0 < figure.value - figure.low < 0.5
    assert figure.count == 8
    assert found.tables["tasks"][0]["num_fewshot"] == 0
    assert len(found.rows) == 8

    theirs = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(MODEL), "dtype": "float32"},
        tasks=["prefopt_tiny"],
        device="cpu",
        batch_size=4,
        task_manager=lm_eval.tasks.TaskManager(include_path=str(tmp_path), include_defaults=False),
    )
    for name in ("acc", "brier_score"):
        assert theirs["results"]["prefopt_tiny"][f"{name},none"] == found.figures[f"prefopt_tiny/{name}"].value
    assert hash_of(theirs["samples"]["prefopt_tiny"]) == found.tables["tasks"][0]["hash"]

    with pytest.raises(UserError, match="has no task 'prefopt_tinny'\n  did you mean 'prefopt_tiny'"):
        measure(Harness(["prefopt_tinny"], include_path=str(tmp_path)), tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not MODEL.is_dir(), reason="needs ../shared/models/stories260K")
def test_adapters_are_measured_over_their_base_and_a_chat_template_reaches_the_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    import datasets.config
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_task(tmp_path)
    adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(MODEL), peft.LoraConfig(r=2))
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.5, generator=torch.Generator().manual_seed(0))
    adapted.save_pretrained(tmp_path / "adapters")
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(tmp_path / "merged")
    settings = Harness(["prefopt_tiny"], include_path=str(tmp_path))
    base, plain, whole = (measure(settings, tmp_path, m) for m in (MODEL, tmp_path / "adapters", tmp_path / "merged"))
    brier = [found.figures["prefopt_tiny/brier_score"].value for found in (base, plain, whole)]
    assert brier[1] == pytest.approx(brier[2], abs=1e-4)
    assert abs(brier[1] - brier[0]) > 0.01
    chat = Harness(["prefopt_tiny"], include_path=str(tmp_path), limit=2, apply_chat_template=True)
    asked = measure(chat, tmp_path, tmp_path / "adapters", "chatml")
    assert asked.tables["tasks"][0]["hash"] != plain.tables["tasks"][0]["hash"]
    assert asked.figures["prefopt_tiny/acc"].count == 2
    with pytest.raises(UserError, match=r"measure\.apply_chat_template: .* has no chat template"):
        measure(chat, tmp_path, tmp_path / "adapters")
