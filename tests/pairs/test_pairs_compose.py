"""`prefopt pairs` from words to settings: every key is known, of its type, and has an effect, or is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from prefopt.errors import UserError
from prefopt.pairs_config import NOT_IDENTITY, compose_pairs, identity

PROMPTS, POLICY, JUDGE = "prompts=p.jsonl", "policy=m", ("score=python", "score.function=a:b")
WHOLE = (PROMPTS, POLICY, *JUDGE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chunk_sise=3"], "chunk_sise: there is no such key\n  did you mean chunk_size?"),
        (["generate.beams=2"], "generate.beams: sample has no such setting"),
        (["score.beta=1"], "score.beta: python has no such setting\n  known: function"),
        (["select.threshold=1"], "select.threshold: best_vs_worst has no such setting"),
        (["generate.name=given"], "generate.name: a stage is chosen whole\n  generate=NAME"),
        (["generate=beam"], "generate=beam: there is no such generate"),
        (["generate=null"], "generate=null: one must be chosen"),
        (["~limit"], "~limit: nothing can be deleted here"),
        (["generate.n=two"], "generate.n: expected a whole number, got text 'two' (command line)"),
        (["limit=true"], "limit: expected a whole number, got true (command line)"),
        (["avoid=x"], "avoid: expected a list, got text 'x' (command line)"),
        (["dtype=fp16"], "dtype: must be one of float32, bfloat16, not 'fp16' (command line)"),
        (["generate.n=0"], "generate: n and max_new_tokens must be 1 or more, not 0 and 512 (command line)"),
        (["chunk_size=0"], "chunk_size: must be 1 or more, not 0 (command line)"),
        (["tokens_per_batch=0"], "tokens_per_batch: must be 1 or more, not 0 (command line)"),
        (["max_prompt_tokens=0"], "max_prompt_tokens: must be 1 or more, not 0 (command line)"),
        (["limit=0"], "limit: must be 1 or more, not 0 (command line)"),
        (["num_processes=0"], "num_processes: must be 1 or more, not 0 (command line)"),
        (["name=a/b"], "name: 'a/b' is no name but a path (command line)"),
        (["margins=[{name: lenght}]"], "margins.0.name: there is no 'lenght'\n  did you mean 'length'?"),
        (["margins=[{}]"], "margins.0.name: no stage is named (command line)"),
        (["margins=[{name: python, funktion: a}]"], "margins.0.funktion: there is no such key (command line)"),
        (["margins=[{name: reward}]"], "reward: no model is given, and margins.0=reward uses it"),
        (["reward=r"], "reward: r has no effect: no stage uses it (generate=sample, score=python) (command line)"),
        (["reference=r"], "reference: r has no effect"),
        (["generate=given"], "policy: m has no effect: no stage uses it (generate=given, score=python) (command line)"),
        (["policy=[a,a]"], "policy: ['a', 'a'] names a model twice (command line)\n  generate.n=N asks one model"),
        (["policy=7"], "policy: expected a model's folder or hub name, or a list of them, got 7 (command line)"),
        (["policy=['']"], "policy: expected a model's folder or hub name, or a list of them, got [''] (command line)"),
        (["policy=[]"], "policy: no model is given, and generate=sample uses it"),
        (["seed=1,2"], "seed=1,2: several values for one run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_words_that_are_refused_are_named(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        compose_pairs([*WHOLE, *words])
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([POLICY, *JUDGE], "prompts: no file is given"),
        ([PROMPTS, *JUDGE], "policy: no model is given, and generate=sample uses it"),
        ([PROMPTS, POLICY], "reward: no model is given, and score=reward uses it"),
        ([PROMPTS, POLICY, "score=implicit"], "reward: no model is given, and score=implicit uses it"),
        (
            [PROMPTS, POLICY, "score=python"],
            "score: function must be package.module:function, not '' (score/python.yaml)",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_must_be_given_is_asked_for(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        compose_pairs(words)
    assert message in str(refused.value)


def own_recipe(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "pairs" / "recipe" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"# @package _global_\n# Mine\n{text}")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chunk_size: 0\n", "chunk_size: must be 1 or more, not 0 ("),
        ("generate:\n  beams: 2\n", "generate.beams: there is no such key ("),
        ("generate:\n  n: many\n", "generate.n: expected a whole number, got text 'many' ("),
        ("judge: x\n", "judge: there is no such key ("),
        ("reward: r\n", "reward: r has no effect: no stage uses it (generate=sample, score=python) ("),
        ("prompts: ${oc.env:HOME}\n", "a run does not read the environment"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named_with_its_file(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        compose_pairs(
            [*WHOLE[1:], "recipe=mine", *([] if "prompts" in text else [PROMPTS])], own_recipe(tmp_path, text)
        )
    assert message in str(refused.value)
    assert "recipe/mine.yaml)" in str(refused.value)


def test_the_command_line_wins_over_the_recipe_and_says_so(tmp_path: Path) -> None:
    folder = own_recipe(tmp_path, "generate:\n  # n\n  n: 3\n  top_k: 5\nseed: 7\n")
    composed = compose_pairs([*WHOLE, "recipe=mine", "generate.n=4"], folder)
    assert (composed.settings.generate["n"], composed.settings.generate["top_k"], composed.settings.seed) == (4, 5, 7)
    assert composed.settings.name == "mine"
    assert composed.origins["generate.n"] == "command line"
    assert composed.origins["generate.top_k"].endswith("recipe/mine.yaml")
    assert composed.origins["generate.temperature"] == "generate/sample.yaml"
    assert {key: value for key, value, _ in composed.sources()}["generate.n"] == 4


def test_a_stage_that_the_command_line_chooses_leaves_out_what_the_recipe_said_of_the_other() -> None:
    composed = compose_pairs([PROMPTS, "recipe=rso", "generate=given", "reward=r"])
    assert composed.settings.generate == {"name": "given"}
    left_out = "generate.n, generate.temperature, generate.top_k of recipe/rso.yaml are left out"
    assert composed.notes == (f"generate=given is taken whole: {left_out}",)


def test_the_folder_is_named_by_what_decides_the_pairs_and_by_nothing_else() -> None:
    first = compose_pairs(list(WHOLE)).settings
    assert first.out == f"pairs/pairs-{identity(first)}"
    same = ["device=cpu", "num_processes=3", "shard=1/2", "tokens_per_batch=99"]
    assert compose_pairs([*WHOLE, *same]).settings.out == first.out
    others = ["generate.n=9", "seed=1", "chunk_size=8", "margins=[{name: length}]", "policy=[m, k]", "limit=5"]
    assert len({compose_pairs([*WHOLE, other]).settings.out for other in others} | {first.out}) == len(others) + 1
    assert {word.partition("=")[0] for word in same} | {"name", "out"} == set(NOT_IDENTITY)


def test_a_secret_is_refused_as_a_setting() -> None:
    with pytest.raises(UserError, match="prompts holds a token of the Hugging Face hub"):
        compose_pairs([*WHOLE, "prompts=hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"])


def test_settings_are_refused_without_loading_torch() -> None:
    code = (
        "import sys\nfrom prefopt.cli import main\n"
        f"assert main(['pairs', *{[*WHOLE, 'reward=r']!r}]) == 2\n"
        "assert main(['pairs', '--help']) == 0\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
