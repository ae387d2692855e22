"""Scores that need no model: lengths, repetitions, patterns, a function of the user's, and what is given."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from server_bed import example, place

from prefopt.demo.manners import politeness, rightness, utility
from prefopt.errors import UserError
from prefopt.pairs.registry import make_stage, stage_class
from prefopt.pairs.stages import Judged
from prefopt.records import Candidate, Example

ROOT = Path(__file__).resolve().parents[2]


def judged(tmp_path: Path, rows: Example, name: str, **settings: Any) -> Judged:
    (found,) = make_stage("score", {"name": name, **settings}).open(place(tmp_path))([rows])
    assert isinstance(found, Judged)
    return found


@pytest.mark.parametrize(
    ("name", "settings", "text", "score"),
    [
        ("length", {}, "three short  words\n", 3),
        ("length", {"better": "shorter"}, "three short words", -3),
        ("length", {"unit": "characters"}, "很好。", 3),
        ("length", {}, "", 0),
        ("repetition", {}, "a b c d", 0),
        ("repetition", {}, "a b c", 0),
        ("repetition", {}, "x x x x x x", -2 / 3),  # 3 4-grams, of which the second and the third are the first
        ("repetition", {"n": 1}, "a b a A", -1 / 4),
        ("repetition", {"n": 2}, "a b a b a", -2 / 4),  # ab ba ab ba
        ("regex", {"pattern": r"\d+"}, "1 and 22 and 333", 1),
        ("regex", {"pattern": r"\d+", "count": "matches"}, "1 and 22 and 333", 3),
        ("regex", {"pattern": r"\d+", "count": "matches", "weight": -0.5}, "1 and 22 and 333", -1.5),
        ("regex", {"pattern": r"(?i)SORRY"}, "I am sorry", 1),
        ("regex", {"pattern": r"^(?!.*sorry)"}, "I am sorry", 0),
    ],
)
def test_score(name: str, settings: dict[str, Any], text: str, score: float, tmp_path: Path) -> None:
    found = judged(tmp_path, example("q", text), name, **settings)
    assert found.scores == pytest.approx((score,))
    assert found.reasons == (None,)


def test_given_scores_are_handed_on_and_a_missing_one_is_counted(tmp_path: Path) -> None:
    rows = replace(example("q"), candidates=(Candidate("a", score=0.25), Candidate("b"), Candidate("c", score=-1.0)))
    found = judged(tmp_path, rows, "given")
    assert found.scores == (0.25, None, -1.0)
    assert found.reasons == (None, "no score is given", None)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("length", {"unit": "tokens"}, "must be one of words, characters"),
        ("length", {"better": "best"}, "must be one of longer, shorter"),
        ("repetition", {"n": 0}, "n must be 1 or more"),
        ("regex", {}, "pattern must be a regular expression"),
        ("regex", {"pattern": "(a"}, "pattern '(a' is no regular expression: missing )"),
        ("regex", {"pattern": "a", "weight": 0}, "weight must not be 0"),
        ("python", {}, "function must be package.module:function"),
        ("python", {"function": "os.path.join"}, "function must be package.module:function, not 'os.path.join'"),
        ("python", {"function": "a:b()"}, "function must be package.module:function"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        make_stage("score", {"name": name, **settings})


# A function of the user's


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; what the test imports from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_judge", "my_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "my_judge.py").write_text(
        "import math\n"
        "def overlap(prompt, response):\n    return len(set(prompt.split()) & set(response.split()))\n"
        "def is_short(prompt, response):\n    return len(response) < 5\n"
        "def fails(prompt, response):\n    return 1 / len(response)\n"
        "def nothing(prompt, response):\n    pass\n"
        "def text(prompt, response):\n    return '4'\n"
        "def infinite(prompt, response):\n    return math.inf\n",
        encoding="utf-8",
    )
    (tmp_path / "my_broken.py").write_text("import no_such_package_of_ours\n", encoding="utf-8")
    yield tmp_path
    for name in ("my_judge", "my_broken"):
        sys.modules.pop(name, None)


def test_the_function_gets_the_last_user_turn_and_the_response(mine: Path) -> None:
    turns = [("user", "red green"), ("assistant", "blue"), ("user", "white black")]
    found = judged(mine, example(turns, "black white red", "blue"), "python", function="my_judge:overlap")
    assert found.scores == (2.0, 0.0)
    plain = example("red green", "green", is_chat=False)
    assert judged(mine, plain, "python", function="my_judge:overlap").scores == (1.0,)
    assert judged(mine, plain, "python", function="my_judge:is_short").scores == (0.0,)


def test_a_conversation_without_a_user_is_counted(mine: Path) -> None:
    found = judged(mine, example([("system", "s")], "a"), "python", function="my_judge:overlap")
    assert (found.scores, found.reasons) == ((None,), ("the prompt has no user turn",))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fails", r"my_judge:fails failed: ZeroDivisionError: division by zero \(.*my_judge\.py:7\)"),
        ("nothing", "my_judge:nothing gave None, and a score is a finite number"),
        ("text", "my_judge:text gave '4', and a score is a finite number"),
        ("infinite", "my_judge:infinite gave inf, and a score is a finite number"),
    ],
)
def test_a_function_that_fails_names_its_row_and_itself(function: str, message: str, mine: Path) -> None:
    with pytest.raises(UserError, match=rf"^rows\.jsonl:7, candidate 1: {message}"):
        judged(mine, example("q", "", id="rows.jsonl:7"), "python", function=f"my_judge:{function}")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("my_judge:overlaps", "my_judge has no function 'overlaps'"),
        ("my_judge:math", "my_judge has no function 'math'"),
        ("my_jugde:overlap", "there is no module 'my_jugde', neither installed nor in"),
        ("my_broken:f", "my_broken cannot be imported: ModuleNotFoundError: No module named 'no_such_package_of_ours'"),
    ],
)
def test_a_function_that_is_not_there_is_told_before_anything_is_scored(
    function: str, message: str, mine: Path
) -> None:
    stage = make_stage("score", {"name": "python", "function": function})
    with pytest.raises(UserError, match=re.escape(message)):
        stage.open(place(mine))


def test_the_demos_judge_is_such_a_function(tmp_path: Path) -> None:
    prompt = "What colour is grass?"
    right, rude = " Sure thing! Grass is green. Have a nice day!", " Ugh, fine. Grass is red. Now go away."
    rows = example(prompt, right, rude, "", is_chat=False)
    assert judged(tmp_path, rows, "python", function="prefopt.demo.manners:utility").scores == (3.0, -1.0, 0.0)
    assert [utility(prompt, a) for a in (right, rude)] == [3.0, -1.0]
    assert [politeness(prompt, a) for a in (right, rude, right + rude)] == [1.0, -1.0, 0.0]
    assert [rightness(prompt, a) for a in (right, rude)] == [1.0, 0.0]
    assert rightness("No question of that world", right) == 0.0


# Recipes


@pytest.mark.parametrize(
    ("kind", "name"),
    [("generate", "server"), ("generate", "vllm"), *(("score", s) for s in
     ("judge", "given", "length", "repetition", "regex", "python"))],
)  # fmt: skip
def test_the_recipe_states_the_stages_keys_and_defaults(kind: str, name: str) -> None:
    stated = yaml.safe_load((ROOT / "recipes" / "pairs" / kind / f"{name}.yaml").read_text(encoding="utf-8"))
    needed = {"url": "http://localhost:1/v1", "model": "m", "pattern": "a", "function": "a:b"}
    cls = stage_class(kind, name)
    given = {key: value for key, value in needed.items() if key in cls.__dataclass_fields__}  # type: ignore[attr-defined]
    defaults = asdict(cls(**given))
    assert stated == {"name": name, **defaults, **dict.fromkeys(given, "")}
