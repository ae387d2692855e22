"""An LLM judge behind a server: what is read from its answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from server_bed import FakeServer, Reply, Seen, example, place, scripted, serving

from prefopt.errors import UserError
from prefopt.pairs.comparisons import judged_by_wins
from prefopt.pairs.registry import make_stage
from prefopt.pairs.stages import Judged
from prefopt.pairs.verdict_lines import fill_in, read_score, read_verdict
from prefopt.records import Example

ROOT = Path(__file__).resolve().parents[2]


def judged(fake: FakeServer, notes: Path, *examples: Example, said: list[str] | None = None, **settings: Any) -> Any:
    stage = make_stage("score", {"name": "judge", "url": fake.url, "model": "judge-7b", **settings})
    found: list[Judged] = stage.open(place(notes, said))(examples)
    return found[0] if len(found) == 1 else found


def longer(number: int, seen: Seen) -> str:
    """A fair judge: the longer response is better."""
    first, second = (re.search(rf"<response_{x}>\n(.*?)\n</", seen.body["messages"][0]["content"], re.S) for x in "ab")
    assert first
    assert second
    difference = len(first[1]) - len(second[1])
    return f"Verdict: {'tie' if not difference else 'A' if difference > 0 else 'B'}"


# Reading


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("Score: 4", 4),
        ("Reasons.\n\nscore: 3.5\n", 3.5),
        ("Score: 2\nbut on reflection\nScore: 5", 5),
        ("**Score:** 4", 4),
        ("**Score: 4/5**", 4),
        ("## Score: [[3]]", 3),
        ("> Score = 4 out of 5.", 4),
        ("Score: 3,5", 3.5),
        ("Score: 4\r\n", 4),
        ("Score: 1", 1),
        ("", None),
        ("I give it 4.", None),
        ("Score: <number>", None),
        ("Score: 6", None),
        ("Score: 0.5", None),
        ("Score: -3", None),
        ("Score: 4\nScore: 9", None),
        ("The score: 4 would be fair", None),
        ("Score: 4 or 5", None),
        ("Score: nan", None),
    ],
)
def test_the_last_line_of_the_form_is_the_score(said: str, score: float | None) -> None:
    assert read_score(said, 1.0, 5.0) == score


@pytest.mark.parametrize(
    ("said", "share"),
    [
        ("Verdict: A", 1.0),
        ("Verdict: B\n", 0.0),
        ("verdict: TIE", 0.5),
        ("**Verdict: [[B]]**", 0.0),
        ("Verdict: A\nNo.\nVerdict: B", 0.0),
        ("Verdict: A or B", None),
        ("Verdict: Apples", None),
        ("A", None),
        ("", None),
    ],
)
def test_the_last_line_of_the_form_is_the_verdict(said: str, share: float | None) -> None:
    assert read_verdict(said) == share


def test_braces_that_stand_in_a_response_are_not_filled_in() -> None:
    filled = fill_in('{prompt} {"a": {response}} {other}', {"prompt": "{response}", "response": "{prompt}"})
    assert filled == '{response} {"a": {prompt}} {other}'


# Grades


def test_scalar_asks_once_for_each_candidate_and_keeps_what_was_said(tmp_path: Path) -> None:
    def script(number: int, seen: Seen) -> str:
        return "Good.\nScore: 4.5" if "Paris" in seen.body["messages"][0]["content"] else "Score: 1"

    with serving(script) as fake:
        found = judged(fake, tmp_path, example("Capital of France?", "Paris", "Rome", "Paris"))
    assert found.scores == (4.5, 1.0, 4.5)
    assert found.reasons == (None, None, None)
    assert found.wins is None
    assert found.details[0] == {"judge": "Good.\nScore: 4.5"}
    assert len(fake.seen) == 2  # equal responses are one question
    body = fake.seen[0].body
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge-7b", 0.0, 1024)
    assert "Capital of France?" in body["messages"][0]["content"]


def test_a_conversation_is_shown_turn_by_turn(tmp_path: Path) -> None:
    turns = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Bye")]
    with serving(scripted("Score: 3")) as fake:
        judged(fake, tmp_path, example(turns, "Farewell"))
    assert "System: Be kind.\n\nUser: Hi\n\nAssistant: Yes?\n\nUser: Bye" in fake.questions[0]


def test_an_unreadable_answer_is_followed_up_in_the_same_conversation(tmp_path: Path) -> None:
    with serving(scripted("Quite good, I think.", "Score: 4")) as fake:
        assert judged(fake, tmp_path, example("q", "a")).scores == (4.0,)
    first, second = (seen.body["messages"] for seen in fake.seen)
    assert second[:2] == [*first, {"role": "assistant", "content": "Quite good, I think."}]
    assert "Score: <number>" in second[2]["content"]


@pytest.mark.parametrize("answer", ["who knows", ""])
def test_an_answer_that_stays_unreadable_is_counted(answer: str, tmp_path: Path) -> None:
    with serving(scripted(answer)) as fake:
        found = judged(fake, tmp_path, example("q", "a"), retries_malformed=2)
        assert len(fake.seen) == 3
    assert found.scores == (None,)
    assert found.reasons == ("judge's answer cannot be read",)
    with serving(scripted("Score: 4")) as fake:
        assert judged(fake, tmp_path / "other", example("q", "a"), retries_malformed=0).scores == (4.0,)


def test_a_candidate_that_the_judge_refuses_is_counted(tmp_path: Path) -> None:
    refusal = Reply(status=400, raw=b'{"error": "too long"}')
    with serving(lambda number, seen: refusal if "yyy" in seen.body["messages"][0]["content"] else "Score: 2") as fake:
        found = judged(fake, tmp_path, example("q", "a", "yyy"))
    assert found.scores == (2.0, None)
    assert found.reasons == (None, "judge refuses the request")
    assert found.details[1] == {"judge": "HTTP 400: too long"}


def test_a_template_of_ones_own_sets_its_scale(tmp_path: Path) -> None:
    template = tmp_path / "mine.txt"
    template.write_text('Rate {prompt} -> {response} from 0 to 10, as {"score": ...}', encoding="utf-8")
    settings = {"template": str(template), "lowest": 0.0, "highest": 10.0}
    with serving(scripted("Score: 9")) as fake:
        assert judged(fake, tmp_path / "notes", example("q", "a"), **settings).scores == (9.0,)
    assert fake.questions == ['Rate q -> a from 0 to 10, as {"score": ...}']


@pytest.mark.parametrize("template", ["quality", "curation"])
def test_a_builtin_template_holds_what_is_judged_and_asks_for_a_line_that_is_read(
    template: str, tmp_path: Path
) -> None:
    with serving(scripted("Score: 5")) as fake:
        judged(fake, tmp_path, example("THE PROMPT", "THE RESPONSE"), template=template)
    (question,) = fake.questions
    assert "\nTHE PROMPT\n" in question
    assert "\nTHE RESPONSE\n" in question
    (form,) = re.findall(r"^Score: .*$", question, re.M)
    assert read_score(form.replace("<number>", "4"), 1, 5) == 4
    assert all(re.search(rf"^{grade} - ", question, re.M) for grade in range(1, 6))


# Comparisons


def test_a_judge_that_always_says_a_says_nothing(tmp_path: Path) -> None:
    with serving(scripted("Verdict: A")) as fake:
        found = judged(fake, tmp_path, example("q", "x", "yy", "zzz"), mode="pairwise")
        assert len(fake.seen) == 6  # 3 pairs, both orders
    assert found.wins == ((0.5,) * 3,) * 3
    assert found.scores == (0.5, 0.5, 0.5)


def test_a_fair_judge_gives_wins_and_their_means(tmp_path: Path) -> None:
    with serving(longer) as fake:
        found = judged(fake, tmp_path, example("q", "x", "yyy", "zz", "aa"), mode="pairwise")
    assert found.wins == ((0.5, 0, 0, 0), (1, 0.5, 1, 1), (1, 0, 0.5, 0.5), (1, 0, 0.5, 0.5))
    assert found.scores == (0, 1, 0.5, 0.5)
    assert found.reasons == (None,) * 4
    assert len(fake.seen) == 12


def test_a_judge_that_leans_to_the_first_is_corrected_by_the_other_order(tmp_path: Path) -> None:
    with serving(
        lambda number, seen: "Verdict: A" if "<response_a>\nx\n" in fake.questions[number] else "Verdict: tie"
    ) as fake:
        found = judged(fake, tmp_path, example("q", "x", "y"), mode="pairwise", concurrency=1)
    assert found.wins == ((0.5, 0.75), (0.25, 0.5))
    assert found.scores == (0.75, 0.25)


def test_equal_candidates_are_not_compared(tmp_path: Path) -> None:
    with serving(longer) as fake:
        found = judged(fake, tmp_path, example("q", "xx", "xx", "y"), mode="pairwise")
        assert len(fake.seen) == 2
    assert found.scores == (0.75, 0.75, 0)


def test_a_single_candidate_has_nobody_to_be_compared_with(tmp_path: Path) -> None:
    with serving(longer) as fake:
        found = judged(fake, tmp_path, example("q", "x"), mode="pairwise")
        assert not fake.seen
    assert found == Judged((None,), ("no other candidate to compare with",))


def test_an_unreadable_comparison_costs_one_candidate_and_not_the_others(tmp_path: Path) -> None:
    def script(number: int, seen: Seen) -> str:
        return "hm" if "\nbad\n" in seen.body["messages"][0]["content"] else longer(number, seen)

    with serving(script) as fake:
        found = judged(fake, tmp_path, example("q", "x", "bad", "yy"), mode="pairwise", retries_malformed=0)
    assert found.scores == (0.0, None, 1.0)
    assert found.reasons == (None, "judge's answer cannot be read", None)


def test_of_two_that_cannot_be_compared_neither_has_a_score() -> None:
    assert judged_by_wins(2, {(0, 1): None}, "unread") == Judged((None, None), ("unread", "unread"))


def test_as_few_candidates_as_need_be_go_for_comparisons_without_a_verdict() -> None:
    wins = {(0, 1): None, (0, 2): None, (0, 3): 1.0, (1, 2): 1.0, (1, 3): 0.5, (2, 3): 0.25}
    found = judged_by_wins(4, wins, "unread")
    assert found.reasons == ("unread", None, None, None)
    assert found.scores == (None, 0.75, 0.125, 0.625)


# Settings and templates


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "triple"}, "must be one of scalar, pairwise"),
        ({"mode": "pairwise", "template": "curation"}, "template=curation is for mode=scalar, not pairwise"),
        ({"template": "comparison"}, "template=comparison is for mode=pairwise, not scalar"),
        ({"lowest": 5.0}, "lowest must be 0 or more and below highest"),
        ({"highest": 10.0}, "lowest and highest are for a template of your own"),
        ({"mode": "pairwise", "template": "mine.txt", "highest": 10.0}, "lowest and highest are for a template"),
        ({"temperature": -1.0}, "temperature must be 0 or more"),
        ({"max_tokens": 0}, "max_tokens must be 1 or more"),
        ({"retries_malformed": -1}, "retries_malformed must be 0 or more"),
        ({"body": {"max_tokens": 5}}, "body.max_tokens is set by max_tokens"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        make_stage("score", {"name": "judge", "url": "http://localhost:1/v1", "model": "m", **settings})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is neither a template of ours nor a text file: No such file"),
        ("Rate {prompt}", "has no {response}, which mode=scalar fills in"),
        ("Rate it", "has no {prompt} and {response}"),
    ],
)
def test_a_template_that_cannot_be_used_is_told_before_anything_is_asked(
    text: str | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.txt"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with serving(scripted("Score: 4")) as fake:
        with pytest.raises(UserError, match=re.escape(message)):
            judged(fake, tmp_path, example("q", "a"), template=str(file))
        assert not fake.probes
