"""What the command line of `prefopt eval` may say, and what each refusal says."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefopt.errors import UserError
from prefopt.eval_config import compose_eval, identity

SETS = "measure.sets={heldout: pairs.jsonl}"


def refused(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        compose_eval(list(words))
    assert "\n" not in caught.value.message
    return str(caught.value)


def test_model_and_sets_make_a_folder_named_by_measure_and_identity() -> None:
    settings = compose_eval(["model=m", SETS]).settings
    assert settings.name == "preferences"
    assert settings.out == f"eval/preferences-{identity(settings)}"
    assert compose_eval(["run=runs/a", SETS]).settings.out.startswith("runs/a/eval/preferences-")


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("tokens_per_batch=7", True),
        ("num_processes=2", True),
        ("device=cpu", True),
        ("out=elsewhere", True),
        ("name=mine", True),
        ("seed=1", False),
        ("resamples=10", False),
        ("dtype=bfloat16", False),
        ("reference=r", False),
        ("measure.pairs=all", False),
        ("measure.loss={name: simpo}", False),
    ],
)
def test_identity_is_made_of_what_decides_the_figures(word: str, same: bool) -> None:
    plain = identity(compose_eval(["model=m", SETS]).settings)
    assert (identity(compose_eval(["model=m", SETS, word]).settings) == plain) is same


def test_settings_of_a_method_are_whole_and_of_their_types() -> None:
    words = ["model=m", "reference=r", SETS]
    one = compose_eval([*words, "measure.loss={name: dpo, beta: 1}"]).settings
    other = compose_eval([*words, "measure.loss.name=dpo", "measure.loss.beta=1.0"]).settings
    assert one.measure["loss"] == {"name": "dpo", "beta": 1.0}
    assert one == other
    assert compose_eval([*words, "measure.loss={name: dpo}"]).settings.measure["loss"]["beta"] == 0.1


def test_origins_name_file_and_command_line() -> None:
    origins = compose_eval(["model=m", SETS]).origins
    assert origins["model"] == "command line"
    assert origins["resamples"] == "eval.yaml"
    assert origins["measure.chunk_size"] == "measure/preferences.yaml"
    assert origins["out"] == "name and identity"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=m", "measure.sts=3"], "did you mean 'sets'?"),
        (["mdel=m"], "did you mean model?"),
        (["measure=prefernces"], "did you mean 'preferences'?"),
        (["measure.name=win_rate"], "chosen whole"),
        ([SETS], "run=RUN for a run of prefopt train, or model=MODEL"),
        (["model=m"], "measure.sets: there is no set to measure on"),
        (["model=m", "run=r", SETS], "which one is to be measured?"),
        (["model=m", "reward=x", SETS], "reward: x has no effect"),
        (["model=m", SETS, "measure.loss={name: dpo}"], "reference: no model is given"),
        (["model=m", SETS, "measure.loss={beta: 1}"], "it names no method"),
        (["model=m", SETS, "measure.loss={name: dpoo}"], "did you mean 'dpo'"),
        (["model=m", SETS, "measure.loss={name: dpo, bta: 1}"], "measure.loss.bta: there is no such key"),
        (["model=m", SETS, "measure.loss={name: dpo, beta: -1}"], "beta must be above 0, not -1"),
        (["model=m", SETS, "measure.loss=dpo"], "measure.loss: expected keys and values"),
        (["model=m", "measure.sets={a/b: f}"], "cannot name a set"),
        (["model=m", "measure.sets={a: {pth: f}}"], "measure.sets.a.pth: there is no such key"),
        (["model=m", "measure.sets={a: {path: f, limit: 0}}"], "measure.sets.a.limit: must be 1 or more"),
        (["model=m", SETS, "measure.pairs=some"], "pairs must be one of"),
        (["model=m", SETS, "measure.chunk_size=0"], "chunk_size must be 1 or more, not 0"),
        (["model=m", SETS, "resamples=0"], "resamples: must be 1 or more"),
        (["model=m", SETS, "seed=-1"], "seed: must be in"),
        (["model=m", SETS, "name=a/b"], "is no name but a path"),
        (["model=m", SETS, "num_processes=0"], "num_processes: must be 1 or more"),
        (["~model"], "nothing can be deleted here"),
    ],
)
def test_refusals_name_the_key_and_what_to_do(words: list[str], said: str) -> None:
    assert said in refused(*words)


def test_composing_imports_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from prefopt.eval_config import compose_eval\n"
        f"compose_eval(['model=m', {SETS!r}, 'measure.loss={{name: orpo}}'])\n"
        "assert not {'torch', 'transformers', 'numpy', 'scipy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
