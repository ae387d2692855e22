"""Win rates before a real HTTP judge and a real reward model, over real files."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pairs"))
from server_bed import Reply, dead_url, serving

from prefopt.errors import UserError
from prefopt.evaluate.answer_files import read_answers
from prefopt.evaluate.decoded import decoding_notes
from prefopt.evaluate.degenerate import sameness
from prefopt.evaluate.length_controlled import Comparisons, length_term, plain_fit
from prefopt.evaluate.measure import EvalPlace
from prefopt.evaluate.measures.win_rate import WinRate
from prefopt.evaluate.settings import EvalSettings

OUTPUTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "alpaca_eval" / "outputs"


def place(tmp_path: Path, reward: str = "") -> EvalPlace:
    return EvalPlace(EvalSettings(resamples=200, reward=reward), tmp_path, "", None, "cpu")


def write(path: Path, responses: dict[str, str], categories: dict[str, str] | None = None) -> str:
    with open(path, "w", encoding="utf-8") as file:
        for prompt, response in responses.items():
            row = {"id": prompt.split(" ")[0], "prompt": prompt, "response": response, "generator": path.stem}
            file.write(json.dumps({**row, "category": (categories or {}).get(prompt, "")}) + "\n")
    return str(path)


def files(tmp_path: Path, n: int = 6) -> tuple[str, str]:
    """Answers of ours are longer for even questions."""
    mine = {f"q{i:02} of many": f"mine {i} " + "m" * (20 if i % 2 == 0 else 2) for i in range(n)}
    theirs = {f"q{i:02} of many": f"theirs {i} " + "t" * 8 for i in range(n)}
    kinds = {prompt: "even" if i % 2 == 0 else "odd" for i, prompt in enumerate(mine)}
    return write(tmp_path / "mine.jsonl", mine, kinds), write(tmp_path / "theirs.jsonl", theirs, kinds)


def shown(question: str) -> tuple[str, str]:
    """The two answers in a judge's question, in its order."""
    found = re.findall(r"(?:mine|theirs) \d+ [mt]+", question)
    return found[0], found[1]


def longer(_: int, seen) -> str:
    first, second = shown(seen.body["messages"][-1]["content"])
    return "Verdict: A" if len(first) > len(second) else "Verdict: B"


def judge(url: str, **more: object) -> dict[str, object]:
    return {"url": url, "model": "m", "retries_malformed": 0, **more}


def test_judge_of_length_gives_the_longer_answers_and_both_orders_agree(tmp_path):
    mine, theirs = files(tmp_path)
    with serving(longer) as server:
        found = WinRate(mine, theirs, judge=judge(server.url))(place(tmp_path))
        asked = len(server.seen)
        again = WinRate(mine, theirs, judge=judge(server.url))(place(tmp_path))
        assert (asked, len(server.seen)) == (12, 12)  # kept answers are not asked for again
    assert again.figures == found.figures
    value = {name: figure.value for name, figure in found.figures.items()}
    assert (value["win_rate"], value["win_rate/even"], value["win_rate/odd"]) == (50, 100, 0)
    assert (value["orders/agreement"], value["orders/first_shown"], value["longer/win_rate"]) == (100, 50, 100)
    assert found.figures["win_rate"].count == 6
    assert 0 <= found.figures["win_rate"].low < 50 < found.figures["win_rate"].high <= 100
    assert [row["preference"] for row in found.rows] == [1, 0, 1, 0, 1, 0]


def test_judge_that_takes_the_first_gives_half_and_orders_do_not_agree(tmp_path):
    mine, theirs = files(tmp_path)
    with serving(lambda *_: "Verdict: A") as server:
        found = WinRate(mine, theirs, judge=judge(server.url))(place(tmp_path))
    value = {name: figure.value for name, figure in found.figures.items()}
    assert (value["win_rate"], value["orders/agreement"], value["orders/first_shown"]) == (50, 0, 100)


def test_unreadable_verdict_is_an_error_by_question_or_is_left_out(tmp_path):
    mine, theirs = files(tmp_path)

    def mumbles(number: int, seen) -> str:
        question = seen.body["messages"][-1]["content"]
        return "hm" if "mine 3" in question else longer(number, seen)

    with serving(mumbles) as server:
        with pytest.raises(UserError, match="1 of 6 questions have no verdict; the first is q03: judge's answer"):
            WinRate(mine, theirs, judge=judge(server.url))(place(tmp_path))
        found = WinRate(mine, theirs, judge=judge(server.url), max_missing=1)(place(tmp_path))
    assert found.left_out == {"judge's answer cannot be read": 1}
    assert found.figures["win_rate"].value == pytest.approx(60)
    assert len(found.rows) == 6


def test_estimate_says_calls_tokens_and_cost_and_asks_nothing(tmp_path, capsys):
    mine, theirs = files(tmp_path)
    settings = judge(dead_url(), max_tokens=10)
    measure = WinRate(mine, theirs, judge=settings, price_per_million=[2.0, 10.0], estimate_only=True)
    found = measure(place(tmp_path))
    value = {name: figure.value for name, figure in found.figures.items()}
    assert (value["estimate/calls"], value["estimate/tokens_out"]) == (12, 120)
    assert value["estimate/cost"] == pytest.approx((2 * value["estimate/tokens_in"] + 10 * 120) / 1e6)
    assert "asked 12 times" in capsys.readouterr().err


def test_equal_answers_are_a_tie_that_nobody_is_asked_about(tmp_path):
    same = {f"q{i} question": f"answer {i} of its own" for i in range(4)}
    with serving(longer, models=Reply(raw=b"{}")) as server:
        one, other = write(tmp_path / "a.jsonl", same), write(tmp_path / "b.jsonl", same)
        found = WinRate(one, other, judge=judge(server.url))(place(tmp_path))
        assert not server.seen
    assert found.figures["win_rate"].value == 50


def test_question_that_one_file_lacks_is_an_error_or_is_left_out(tmp_path):
    mine, _ = files(tmp_path, 6)
    (tmp_path / "x").mkdir()
    _, short = files(tmp_path / "x", 5)
    with pytest.raises(UserError, match=r"1 questions have no answer of the baseline; the first is q05"):
        WinRate(mine, short, judge=judge(dead_url()))(place(tmp_path))
    with serving(longer) as server:
        found = WinRate(mine, short, judge=judge(server.url), allow_unmatched=True)(place(tmp_path))
    assert found.left_out == {"no answer of the baseline": 1}
    assert found.figures["win_rate"].count == 5


def test_files_without_a_common_id_are_matched_by_prompt(tmp_path):
    mine, theirs = files(tmp_path)
    renamed = Path(theirs).read_text(encoding="utf-8").replace('"id": "q', '"id": "other-')
    Path(theirs).write_text(renamed, encoding="utf-8")
    with serving(longer) as server:
        found = WinRate(mine, theirs, judge=judge(server.url))(place(tmp_path))
    assert found.figures["win_rate"].count == 6


@pytest.mark.parametrize("side", ["answers", "baseline"])
def test_one_answer_to_everything_is_refused_on_either_side_and_noted_where_allowed(tmp_path, side):
    mine, theirs = files(tmp_path)
    constant = write(tmp_path / "null.jsonl", {f"q{i:02} of many": "theirs 1 tttttttt" for i in range(6)})
    both = {"answers": mine, "baseline": theirs, side: constant}
    with pytest.raises(UserError, match=rf"measure.{side} .*of 6 answers 100% are the same") as caught:
        WinRate(**both, judge=judge(dead_url()))(place(tmp_path))
    assert "nearly so: 'theirs 1 tttttttt'" in caught.value.message
    assert "measure.temperature=1 samples them" in caught.value.hint
    with serving(lambda *_: "Verdict: tie") as server:
        found = WinRate(**both, judge=judge(server.url), allow_degenerate=True)(place(tmp_path))
    assert "how a judge is gamed" in found.notes[1]


def answered(folder: Path, file: str, measure: dict[str, object]) -> str:
    """A file moved into a folder as `measure=answers` leaves it."""
    folder.mkdir()
    (folder / "settings.yaml").write_text(json.dumps({"measure": {"name": "answers", **measure}}), encoding="utf-8")
    return str(Path(file).rename(folder / "answers.jsonl"))


def test_a_win_rate_names_how_both_files_were_decoded(tmp_path):
    mine, theirs = files(tmp_path)
    assert decoding_notes(mine, theirs) == []
    greedy = "the likeliest token each time (temperature=0), max_new_tokens=24"
    mine = answered(tmp_path / "a", mine, {"max_new_tokens": 24})
    assert decoding_notes(mine, theirs) == [
        f"decoding of measure.answers: {greedy}; of measure.baseline: not known"
    ]  # fmt: skip
    theirs = answered(tmp_path / "b", theirs, {"temperature": 1.0, "max_new_tokens": 24})
    with serving(longer) as server:
        found = WinRate(mine, theirs, judge=judge(server.url))(place(tmp_path / "c"))
    sampled = "sampled, temperature=1, top_p=1, max_new_tokens=24"
    assert found.notes[1].startswith(
        f"decoding of measure.answers: {greedy}; of measure.baseline: {sampled}. They differ"
    )
    assert decoding_notes(mine, mine) == [f"decoding of both: {greedy}"]


def test_nearly_constant_answers_are_degenerate_and_answers_that_share_an_opening_are_not():
    body = " ".join(f"word{i}" for i in range(60))
    assert sameness([f"About {i}: {body}" for i in range(50)]).is_degenerate
    opening = "Sure, I am happy to help you with that."
    own = [opening + " " + " ".join(f"own{i}x{j}" for j in range(30)) for i in range(50)]
    assert not sameness(own).is_degenerate


@pytest.mark.skipif(not OUTPUTS.is_dir(), reason="shared/data/alpaca_eval is not there")
def test_of_the_published_models_only_the_constant_one_is_degenerate():
    found = {
        file.name.removesuffix(".json.gz"): sameness([answer.response for answer in read_answers(file)])
        for file in sorted(OUTPUTS.glob("*.json.gz"))
    }
    assert len(found) == 11
    assert [name for name, same in found.items() if same.is_degenerate] == ["NullModel"]
    assert max(same.near for name, same in found.items() if name != "NullModel") < 0.03


def test_plain_fit_finds_the_win_rate_at_equal_length_of_a_simulation():
    rng = np.random.default_rng(0)
    lengths = rng.integers(50, 400, 4000)
    baseline = rng.integers(200, 500, 4000)
    term = length_term(baseline, lengths)
    p = 1 / (1 + np.exp(-(0.4 - 1.5 * term)))  # equal length: sigmoid(0.4) = 0.5987
    wins = (rng.random(4000) < p).astype(float)
    found = plain_fit(Comparisons(wins, term, np.zeros(4000, dtype=np.int64)))
    assert wins.mean() < 0.45
    assert found.rate == pytest.approx(0.5987, abs=0.04)
    assert found.phi == pytest.approx(-1.5, abs=0.2)


def test_length_term_is_the_difference_over_its_deviation():
    # Differences -2, 0, 4: deviation (n - 1) is sqrt(28 / 3) = 3.05505, and no mean is taken off
    found = length_term([1, 5, 9], [3, 5, 5])
    assert found == pytest.approx(np.tanh(np.array([-2, 0, 4]) / 3.0550505))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"judge": {"url": "http://x/v1", "model": "m", "mode": "scalar"}}, "mode is pairwise here"),
        ({"estimate_only": True}, "no effect without judge"),
        ({"judge": {"url": "http://x/v1", "model": "m"}, "price_per_million": [1.0]}, "two prices"),
        ({"max_missing": -1}, "max_missing"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        WinRate("a.jsonl", "b.jsonl", **given)


def test_judge_and_reward_model_together_are_refused(tmp_path):
    measure = WinRate("a.jsonl", "b.jsonl", judge=judge("http://127.0.0.1:1/v1"))
    with pytest.raises(UserError, match="both given"):
        measure.check(EvalSettings(reward="model"))
    with pytest.raises(UserError, match="nobody judges"):
        WinRate("a.jsonl", "b.jsonl").check(EvalSettings())
