"""Prompts of any file: bare strings, prompt columns, rows of every format; each once, and the rest accounted for."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from prefopt.data.load import read_rows
from prefopt.errors import UserError
from prefopt.pairs.prompts import read_prompts
from prefopt.pairs.registry import make_stage
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import Generated, LeftOut, Place
from prefopt.records import Candidate, Example, Message
from prefopt.settings import SourceSettings

GIVEN = {"given": True}


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(path: str | Path, **settings: Any) -> tuple[list[Example], list[LeftOut]]:
    found = list(read_prompts(str(path), **settings))
    return [f for f in found if isinstance(f, Example)], [f for f in found if isinstance(f, LeftOut)]


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def test_bare_strings_are_plain_prompts(tmp_path: Path) -> None:
    examples, left_out = read(write(tmp_path / "p.jsonl", "Why?", "How?\u2028So?"))
    assert examples == [
        Example("p.jsonl:1", user("Why?"), (), False),
        Example("p.jsonl:2", user("How?\u2028So?"), (), False),
    ]
    assert left_out == []


def test_a_json_array_of_strings_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('["Why?", {"prompt": "How?"}]')
    assert [example.prompt for example in read(tmp_path / "p.json")[0]] == [user("Why?"), user("How?")]


def test_training_still_refuses_bare_strings(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", "Why?")
    with pytest.raises(UserError, match=r"p.jsonl:1: a row must be an object with named columns, not a string"):
        list(read_rows(SourceSettings(path)))


def test_what_is_neither_string_nor_object_is_named_by_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"p.jsonl:2: a row must be an object with named columns, not a number"):
        read(write(tmp_path / "p.jsonl", "Why?", 7))


@pytest.mark.parametrize(
    ("row", "prompt", "is_chat", "given"),
    [
        ({"prompt": "Why?"}, user("Why?"), False, ()),
        ({"prompt": [{"role": "user", "content": "Why?"}]}, user("Why?"), True, ()),
        ({"instruction": "Add.", "input": "1 2"}, user("Add.\n1 2"), True, ()),
        ({"instruction": "Add.", "input": ""}, user("Add."), True, ()),
        ({"instruction": "Add.", "output": "3"}, user("Add."), True, (Candidate("3", source=GIVEN),)),
        ({"question": "Why?"}, user("Why?"), True, ()),
        ({"turns": ["Why?", "And then?"]}, user("Why?"), True, ()),
        ({"turns": [{"content": "Why?"}]}, user("Why?"), True, ()),
        ({"messages": [{"role": "user", "content": "Why?"}]}, user("Why?"), True, ()),
        (
            {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
            user("Why?"),
            True,
            (Candidate("So.", source=GIVEN),),
        ),
        (
            {"prompt": "Why?", "chosen": "a", "rejected": "b"},
            user("Why?"),
            False,
            (Candidate("a", score=1.0, source=GIVEN), Candidate("b", score=0.0, source=GIVEN)),
        ),
        (
            {"prompt": "Why?", "responses": ["a", "b"], "scores": [0.5, 2]},
            user("Why?"),
            False,
            (Candidate("a", score=0.5, source=GIVEN), Candidate("b", score=2.0, source=GIVEN)),
        ),
        (
            {"prompt": "Why?", "completion": "a", "score": 3},
            user("Why?"),
            False,
            (Candidate("a", score=3.0, source=GIVEN),),
        ),
        (
            {"chosen": "\n\nHuman: Why?\n\nAssistant: a", "rejected": "\n\nHuman: Why?\n\nAssistant: b"},
            user("Why?"),
            True,
            (Candidate("a", score=1.0, source=GIVEN), Candidate("b", score=0.0, source=GIVEN)),
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_a_row_of_these_columns_is_this_prompt(
    row: dict[str, Any], prompt: tuple[Message, ...], is_chat: bool, given: tuple[Candidate, ...], tmp_path: Path
) -> None:
    assert read(write(tmp_path / "p.jsonl", row)) == ([Example("p.jsonl:1", prompt, given, is_chat)], [])


def test_y_ref_is_the_target_where_a_row_has_it(tmp_path: Path) -> None:
    rows = (
        {"prompt": "a", "chosen": "x", "rejected": "y", "y_ref": "z"},
        {"prompt": "b", "chosen": "x", "rejected": "y"},
    )
    assert [e.target for e in read(write(tmp_path / "p.jsonl", *rows))[0]] == ["z", None]
    assert [e.target for e in read(write(tmp_path / "q.jsonl", {"prompt": "a", "y_ref": "z"}))[0]] == ["z"]


def test_conversations_may_end_with_either_side(tmp_path: Path) -> None:
    ask, answer = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
    examples, left_out = read(
        write(
            tmp_path / "p.jsonl", {"messages": [ask, answer, ask]}, {"messages": [ask, answer]}, {"messages": [answer]}
        )
    )
    assert [len(example.prompt) for example in examples] == [3, 1]
    assert [len(example.candidates) for example in examples] == [0, 1]
    assert left_out == [LeftOut("p.jsonl:3", "missing prompt", "messages hold nothing but the answer")]


def test_repeated_and_unusable_and_empty_rows_are_left_out_with_reasons(tmp_path: Path) -> None:
    rows = {"prompt": "Why?"}, {"prompt": "How?"}, {"prompt": "Why?"}, {"prompt": 7}, {"prompt": " \n"}, {"other": 1}
    examples, left_out = read(write(tmp_path / "p.jsonl", *rows))
    assert [example.id for example in examples] == ["p.jsonl:1", "p.jsonl:2"]
    assert left_out == [
        LeftOut("p.jsonl:3", "repeated prompt", "it is that of p.jsonl:1"),
        LeftOut("p.jsonl:4", "prompt is neither text nor messages", "it is a number"),
        LeftOut("p.jsonl:5", "empty prompt"),
        LeftOut("p.jsonl:6", "missing prompt", "no such field"),
    ]


def test_a_plain_prompt_and_a_conversation_of_the_same_words_are_two(tmp_path: Path) -> None:
    examples, _ = read(write(tmp_path / "p.jsonl", "Why?", {"prompt": [{"role": "user", "content": "Why?"}]}))
    assert len(examples) == 2


def test_a_given_response_without_words_is_left_out_alone(tmp_path: Path) -> None:
    examples, left_out = read(write(tmp_path / "p.jsonl", {"prompt": "Why?", "chosen": "a", "rejected": " "}))
    assert [c.text for c in examples[0].candidates] == ["a"]
    assert left_out == [LeftOut("p.jsonl:1", "empty response", "a given one", " ")]


def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "p.jsonl", "a", "b", "c"), limit=2)[0]) == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows in it"),
        ([{"text": "x"}], r"none of its columns \(text\) holds prompts"),
        ([{"choices": []}], "name the column one of prompt, instruction, messages, conversations, question, turns"),
    ],
)
def test_a_file_without_prompts_is_refused_before_the_first_is_asked_for(
    rows: list[Any], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "p.jsonl", *rows)
    with pytest.raises(UserError, match=message):
        read_prompts(path)


def test_a_missing_file_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent.jsonl: no such file"):
        read_prompts(str(tmp_path / "absent.jsonl"))


@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("oasst_en100/prompts_250.jsonl.gz", 250),
        ("mt_bench/question.jsonl", 80),
        ("arena_hard/v2.0_question.jsonl.gz", 750),
        ("alpaca_eval/example_outputs.json.gz", 805),
        ("llamafactory/dpo_en_demo.json.gz", 300),
        ("stories_happy/train.jsonl.gz", 1200),
        ("hh_harmless/train.jsonl.gz", 1844),
    ],
)
def test_real_files_give_a_prompt_or_a_reason_for_every_row(file: str, count: int, shared: Path) -> None:
    examples, left_out = read(shared / "data" / file)
    reasons = Counter(one.reason for one in left_out if one.text is None)
    assert len(examples) + reasons.total() == count
    assert set(reasons) <= {"repeated prompt", "dialogues differ before the last answer", "empty prompt"}
    assert len(examples) > 0.8 * count


def test_gzipped_bare_strings_keep_file_and_line_in_errors(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "p.jsonl.gz", "wt") as file:
        file.write('"Why?"\n"How?\n')
    with pytest.raises(UserError, match=r"p.jsonl.gz:2: not valid JSON"):
        read(tmp_path / "p.jsonl.gz")


def generate(name: str, *examples: Example, **settings: Any) -> list[Generated]:
    place = Place(PairsSettings(), "cpu", "", lambda line: None)
    return make_stage("generate", {"name": name, **settings}).open(place)(examples)


def test_given_passes_responses_on_and_leaves_bare_prompts_out() -> None:
    answered = Example("a:1", user("Why?"), (Candidate("So.", source=GIVEN),), False)
    bare = Example("a:2", user("How?"), (), False)
    assert generate("given", answered, bare) == [
        Generated((answered,)),
        Generated((), (LeftOut("a:2", "no given response", "the row holds a prompt alone"),)),
    ]


def test_swapped_asks_the_best_response_for_its_instruction() -> None:
    given = (Candidate("worse", score=0.0, source=GIVEN), Candidate("better", score=1.0, source=GIVEN))
    (found,) = generate("swapped", Example("a:1", user("Why?"), given, True))
    swapped = Candidate("Why?", score=1.0, source={"given": True, "swapped": True})
    assert found.examples == (Example("a:1", user("better"), (swapped,), False),)
    assert found.left_out == (LeftOut("a:1", "only the best response is swapped", "", "worse"),)
    (found,) = generate("swapped", Example("a:1", user("Why?"), given[:1], True), is_chat=True)
    assert found.examples[0].is_chat


def test_swapped_leaves_out_what_has_no_response_or_no_single_instruction() -> None:
    several = (Message("system", "Be brief."), Message("user", "Why?"))
    found = generate(
        "swapped", Example("a:1", user("Why?"), ()), Example("a:2", several, (Candidate("So.", source=GIVEN),))
    )
    assert [one.left_out[0].reason for one in found] == ["no given response", "prompt of several turns"]
    assert all(not one.examples for one in found)


def test_the_stages_import_nothing_heavy() -> None:
    code = (
        "import sys; from prefopt.pairs.registry import names, stage_class\n"
        "[stage_class('select', n) for n in names('select')]\n"
        "[stage_class('generate', n) for n in ('given', 'swapped')]\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'datasets', 'pyarrow') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
