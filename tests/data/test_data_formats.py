"""Each format is recognised from its columns, read exactly, and its misfits are left out with a reason."""

from __future__ import annotations

import pytest

from prefopt.data.formats import FORMATS, recognise
from prefopt.data.rows import Row, Unusable
from prefopt.errors import UserError
from prefopt.records import Candidate, Example, Message, example_from_json, example_to_json

U, A, S = "user", "assistant", "system"


def say(*turns: tuple[str, str]) -> list[dict]:
    return [{"role": role, "content": content} for role, content in turns]


def read(value: dict, first: dict | None = None) -> tuple[str, Example]:
    row = Row("f.jsonl", 7, value)
    found = recognise([Row("f.jsonl", 1, first or value)], "auto", "f.jsonl")
    return found.format.name, found.example(row)


def prompt_of(example: Example) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in example.prompt]


def texts_of(example: Example) -> list[str]:
    return [c.text for c in example.candidates]


HH = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: sky?\n\nAssistant:"
CASES = [
    # columns, format, prompt, texts, scores, is_chat
    ({"prompt": "p", "chosen": "c", "rejected": "r"}, "trl", [(U, "p")], ["c", "r"], [1, 0], False),
    (
        {"prompt": "p", "chosen": "c", "rejected": "r", "score_chosen": 7.5, "score_rejected": "2"},
        "trl", [(U, "p")], ["c", "r"], [7.5, 2], False,
    ),
    (
        {"prompt": say((S, "be"), (U, "p")), "chosen": say((A, "c")), "rejected": say((A, "r"))},
        "trl", [(S, "be"), (U, "p")], ["c", "r"], [1, 0], True,
    ),
    (
        {"chosen": say((U, "p"), (A, "c")), "rejected": say((U, "p"), (A, "r"))},
        "trl", [(U, "p")], ["c", "r"], [1, 0], True,
    ),
    (  # the prompt apart, and again in front of both conversations
        {"prompt": "p", "chosen": say((U, "p"), (A, "c")), "rejected": say((U, "p"), (A, "r")), "messages": []},
        "trl", [(U, "p")], ["c", "r"], [1, 0], True,
    ),
    (
        {"chosen": "Q: sky? A: blue", "rejected": "Q: sky? A: black"},
        "trl", [(U, "Q: sky? A:")], [" blue", " black"], [1, 0], False,
    ),
    (
        {"chosen_messages": say((U, "p"), (A, "c")), "rejected_messages": say((U, "p"), (A, "r"))},
        "trl", [(U, "p")], ["c", "r"], [1, 0], True,
    ),
    (
        {"chosen": HH + " Blue.", "rejected": HH + "  Red\n"},
        "hh", [(U, "hi"), (A, "hello"), (U, "sky?")], ["Blue.", " Red\n"], [1, 0], True,
    ),
    (
        {"conversations": [{"from": "system", "value": "be"}, {"from": "human", "value": "p"}],
         "chosen": {"from": "gpt", "value": "c"}, "rejected": "r"},
        "sharegpt", [(S, "be"), (U, "p")], ["c", "r"], [1, 0], True,
    ),
    (  # what was asked stands in messages, and chosen and rejected are answers: a turn, a list of one, or plain
        {"messages": say((S, "be"), (U, "p")), "chosen": say((A, "c")), "rejected": {"role": A, "content": "r"}},
        "sharegpt", [(S, "be"), (U, "p")], ["c", "r"], [1, 0], True,
    ),
    ({"messages": say((U, "p")), "chosen": "c", "rejected": "r"}, "sharegpt", [(U, "p")], ["c", "r"], [1, 0], True),
    (  # chosen and rejected hold the question themselves
        {"messages": say((U, "p")), "chosen": say((U, "p"), (A, "c")), "rejected": say((U, "p"), (A, "r"))},
        "trl", [(U, "p")], ["c", "r"], [1, 0], True,
    ),
    (  # LLaMA-Factory's pairs below an instruction
        {"instruction": "i", "input": "x", "chosen": "c", "rejected": "r"},
        "alpaca", [(U, "i\nx")], ["c", "r"], [1, 0], True,
    ),
    ({"instruction": "i", "input": "", "chosen": "c", "rejected": "r"}, "alpaca", [(U, "i")], ["c", "r"], [1, 0], True),
    ({"instruction": "", "input": "x", "chosen": "c", "rejected": "r"}, "alpaca", [(U, "x")], ["c", "r"], [1, 0], True),
    ({"instruction": "i", "chosen": "c", "rejected": "r"}, "alpaca", [(U, "i")], ["c", "r"], [1, 0], True),
    (
        {"system": "be", "history": [["q", "a"]], "instruction": "i", "chosen": "c", "rejected": "r"},
        "alpaca", [(S, "be"), (U, "q"), (A, "a"), (U, "i")], ["c", "r"], [1, 0], True,
    ),
    (  # ms-swift's
        {"messages": say((U, "p"), (A, "c")), "rejected_response": "r"},
        "swift", [(U, "p")], ["c", "r"], [1, 0], True,
    ),
    (
        {"prompt": "p", "responses": ["a", "b", "c"], "scores": [1, 3, 2.5]},
        "ranked", [(U, "p")], ["a", "b", "c"], [1, 3, 2.5], False,
    ),
    ({"prompt": "p", "responses": ["a", "b"], "rank": [1, 0]}, "ranked", [(U, "p")], ["a", "b"], [-1, 0], False),
    (  # LLMBar: the second is better
        {"input": "p", "output_1": "a", "output_2": "b", "label": 2},
        "judged", [(U, "p")], ["b", "a"], [1, 0], True,
    ),
    (  # PandaLM: two of three annotators for the first
        {"instruction": "i", "input": "x", "response1": "a", "response2": "b",
         "annotator1": 1, "annotator2": 2, "annotator3": 1},
        "judged", [(U, "i\nx")], ["a", "b"], [1, 0], True,
    ),
    (  # one each, and one who sees no difference
        {"instruction": "i", "response1": "a", "response2": "b", "annotator1": 1, "annotator2": 2, "annotator3": 0},
        "judged", [(U, "i")], ["a", "b"], [0, 0], True,
    ),
    (  # AlpacaEval: 1 is the first, 2 the second
        {"instruction": "i", "output_1": "a", "output_2": "b", "preference": 1.7, "dataset": "d"},
        "judged", [(U, "i")], ["b", "a"], [1, 0], True,
    ),
    (
        {"prompt": "p", "response_1": "a", "response_2": "b", "preference": 1.5},
        "judged", [(U, "p")], ["a", "b"], [0, 0], False,
    ),
    ({"prompt": "p", "completion": "c"}, "sft", [(U, "p")], ["c"], [None], False),
    ({"prompt": "p", "response": "c"}, "sft", [(U, "p")], ["c"], [None], False),
    ({"instruction": "i", "input": "x", "output": "o"}, "sft", [(U, "i\nx")], ["o"], [None], True),
    ({"instruction": "i", "input": "", "output": "o"}, "sft", [(U, "i")], ["o"], [None], True),
    ({"messages": say((U, "p"), (A, "c"))}, "sft", [(U, "p")], ["c"], [None], True),
    ({"prompt": "p", "messages": say((U, "p"), (A, "c"))}, "sft", [(U, "p")], ["c"], [None], True),
    (
        {"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "c"}], "system": "be"},
        "sft", [(S, "be"), (U, "p")], ["c"], [None], True,
    ),
    ({"messages": say((S, "its own"), (U, "p"), (A, "c")), "system": "be"},
     "sft", [(S, "its own"), (U, "p")], ["c"], [None], True),
    (  # parts of text may be strings
        {"messages": [{"role": U, "content": ["p", "q"]}, {"role": A, "content": "c"}]},
        "sft", [(U, "pq")], ["c"], [None], True,
    ),
    (  # a label that says neither yes nor no is somebody's column
        {"instruction": "i", "output": "o", "label": "chemistry"}, "sft", [(U, "i")], ["o"], [None], True,
    ),
    (  # parts of text are joined; other names for the roles
        {"messages": [{"role": "Human", "content": [{"type": "text", "text": "p"}, {"type": "text", "value": "q"}]},
                      {"role": "gpt", "content": "c"}]},
        "sft", [(U, "pq")], ["c"], [None], True,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("row", "name", "prompt", "texts", "scores", "is_chat"), CASES)
def test_a_row_is_recognised_and_read(row, name, prompt, texts, scores, is_chat):
    found, example = read(row)
    assert found == name
    assert example.id == "f.jsonl:7"
    assert prompt_of(example) == prompt
    assert texts_of(example) == texts
    assert [c.score for c in example.candidates] == scores
    assert example.is_chat is is_chat


@pytest.mark.parametrize("label", [3, -1, 0.5, "x", None, [1]])
def test_a_verdict_that_names_no_response_is_a_reason(label):
    row = {"input": "p", "output_1": "a", "output_2": "b", "label": label}
    with pytest.raises(Unusable):
        read(row, {**row, "label": 1})


@pytest.mark.parametrize("label", [True, 1, "true", "1"])
def test_a_label_may_be_a_boolean_or_its_spelling(label):
    for row in ({"prompt": "p", "completion": "c"}, {"messages": say((U, "p"), (A, "c"))}):
        name, example = read({**row, "label": label})
        assert name == "labels"
        assert [c.label for c in example.candidates] == [True]


@pytest.mark.parametrize("column", ["label", "kto_tag"])
def test_a_response_to_an_instruction_may_be_labelled_as_llama_factory_does(column):
    labels = frozenset({"labels"})
    for value in ({"instruction": "i", "input": "x", "output": "o"}, {"messages": say((U, "i\nx"), (A, "o"))}):
        row = Row("f", 1, {**value, column: False})
        found = recognise([row], "auto", "f")
        assert found.format.name == "labels"
        assert found.gives("labels", labels)
        assert found.columns_unused(labels) == []
        example = found.example(row, labels)
        assert (prompt_of(example), texts_of(example)) == ([(U, "i\nx")], ["o"])
        assert [c.label for c in example.candidates] == [False]
        with pytest.raises(Unusable, match=f"missing {column}"):
            found.example(Row("f", 2, {**value, column: None}), labels)


def test_a_part_of_a_message_that_is_no_text_is_described():
    good, bad = say((U, "p"), (A, "c")), [{"role": U, "content": ["p", 3]}, {"role": A, "content": "c"}]
    with pytest.raises(Unusable) as error:
        read({"messages": bad}, first={"messages": good})
    assert error.value.detail == "messages[0].content has a number"


def test_our_own_records_are_read_back():
    import json

    written = Example("x", (Message(U, "p"),), (Candidate("a", 1.5, None, (0.1, 2.0)), Candidate("b", 0.0)), False)
    name, example = read(json.loads(example_to_json(written)))
    assert name == "examples"
    assert (example.prompt, example.candidates, example.is_chat) == (written.prompt, written.candidates, False)


@pytest.mark.parametrize("target", [None, "c", ""])
def test_a_record_survives_json(target):
    import json

    candidates = (Candidate("a", 1.5, True, (0.1, 2.0), {"model": "m"}), Candidate("b", 0.0))
    written = Example("x", (Message(S, "be"), Message(U, "p\u2028")), candidates, True, target)
    line = example_to_json(written)
    assert example_from_json(line) == written
    older = json.loads(line)
    del older["target"]  # a line that was written without it
    assert example_from_json(json.dumps(older)).target is None
    found = recognise([Row("f", 1, json.loads(line))], "auto", "f")
    assert found.columns_unused() == []
    if target is not None:
        assert found.example(Row("f", 1, json.loads(line)), frozenset({"targets"})).target == target


TRL = {"prompt": "p", "chosen": "c", "rejected": "r"}
DIALOGUES = {"chosen": HH + " a", "rejected": HH + " b"}
ALPACA = {"instruction": "i", "chosen": "c", "rejected": "r"}
ASKED = {"messages": say((U, "p")), "chosen": "c", "rejected": "r"}
SWIFT = {"messages": say((U, "p"), (A, "c")), "rejected_response": "r"}
RANKED = {"prompt": "p", "responses": ["a"], "scores": [1]}
CONVERSATION = {"prompt": say((U, "p")), "chosen": say((A, "c")), "rejected": say((A, "r"))}


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (TRL, {"chosen": None}, "missing chosen"),
        (TRL, {"rejected": True}, "rejected is not a string"),
        (TRL, {"chosen": 3}, "chosen is not a string"),
        (TRL, {"chosen": [["c"]]}, "chosen is not a string"),
        (TRL, {"chosen": "half \ud800"}, "chosen is not valid text"),
        (TRL, {"prompt": None}, "missing prompt"),
        (TRL, {"prompt": 5}, "prompt is neither text nor messages"),
        (TRL | {"score_chosen": 1, "score_rejected": 0}, {"score_chosen": float("nan")}, "score_chosen is not finite"),
        (TRL | {"score_chosen": 1, "score_rejected": 0}, {"score_chosen": -1}, "scores contradict chosen and rejected"),
        (CONVERSATION, {"chosen": []}, "chosen is not a string"),
        (CONVERSATION, {"chosen": say((U, "c"))}, "prompt is not in the dialogues"),
        (CONVERSATION, {"chosen": [{"role": "narrator", "content": "c"}]}, "unknown role"),
        (CONVERSATION, {"chosen": [{"role": A, "content": None}]}, "message content is not a string"),
        (CONVERSATION, {"chosen": [{"role": A, "content": "", "tool_calls": [1]}]}, "message holds more than text"),
        (CONVERSATION, {"chosen": [{"role": A, "content": [{"type": "image"}]}]}, "message part is not text"),
        (CONVERSATION, {"chosen": say((A, "x"), (U, "y"), (A, "c"))}, "dialogues differ before the last answer"),
        ({"chosen": "a b", "rejected": "a c"}, {"chosen": "x y"}, "no common prompt"),
        (ASKED, {"messages": say((U, "p"), (A, "c"))}, "messages is no prompt"),
        (SWIFT, {"rejected_response": None}, "missing rejected_response"),
        (SWIFT, {"messages": say((U, "p"))}, "messages does not end with an answer"),
        (SWIFT, {"messages": say((A, "c"))}, "missing prompt"),
        (ALPACA, {"instruction": None}, "missing instruction"),
        (ALPACA, {"input": 3}, "input is not a string"),
        (ALPACA, {"history": [["q"]]}, "history is not pairs of question and answer"),
        (ALPACA, {"chosen": None}, "missing chosen"),
        (DIALOGUES, {"chosen": "Hi"}, "chosen does not begin with a Human turn"),
        (DIALOGUES, {"chosen": "\n\nHuman: hi"}, "chosen does not end with an answer"),
        (
            DIALOGUES,
            {"chosen": "\n\nHuman: other\n\nAssistant: a"},
            "dialogues differ before the last answer",
        ),
        (RANKED, {"scores": [1, 2]}, "responses and scores differ in length"),
        (RANKED, {"scores": [True]}, "scores is not a number"),
        (RANKED, {"responses": [False]}, "responses is neither text nor messages"),
        ({"prompt": "p", "completion": "c", "label": True}, {"label": "maybe"}, "label is not true or false"),
        ({"messages": say((U, "p"), (A, "c"))}, {"messages": say((U, "p"))}, "messages does not end with an answer"),
        ({"messages": say((U, "p"), (A, "c"))}, {"messages": say((A, "c"))}, "missing prompt"),
        ({"instruction": "i", "output": "o"}, {"output": ["o"]}, "output is not a string"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_says_why(good, bad, reason):
    read(good)
    with pytest.raises(Unusable) as error:
        read({**good, **bad}, first=good)
    assert error.value.reason == reason


def test_no_kind_of_value_anywhere_makes_a_reader_crash():
    values = [
        None,
        True,
        0,
        1.5,
        "",
        "x",
        [],
        [[]],
        [None],
        {},
        [{}],
        [{"role": 1}],
        {"from": "gpt", "value": []},
        "\ud800",
    ]
    for row, *_ in [
        *CASES,
        ({"prompt": "p", "completion": "c", "label": True},),
        ({"prompt": "p", "candidates": [{"text": "a"}]},),
    ]:
        for column in row:
            for value in values:
                try:
                    read({**row, column: value}, first=row)
                except Unusable:
                    continue
        with pytest.raises(Unusable, match="missing"):
            read({}, first=row)


def test_columns_seen_only_in_later_rows_count():
    rows = [Row("f", 1, {"prompt": "p", "chosen": "c"}), Row("f", 2, {"prompt": "p", "rejected": "r", "extra": 1})]
    found = recognise(rows, "auto", "f")
    assert found.format.name == "trl"
    assert found.columns_unused() == ["extra"]


@pytest.mark.parametrize(
    "columns",
    [
        {"input": "a", "output_1": "b", "output_2": "c"},  # nobody says which is better
        {"question": "a", "chosen": "b", "rejected": "c"},  # its prompt would be lost
        {"text": "a"},
        {},
    ],
)
def test_unknown_columns_are_listed_with_the_known_formats(columns):
    with pytest.raises(UserError, match="fit no format") as error:
        recognise([Row("f.jsonl", 1, columns)], "auto", "f.jsonl")
    assert all(column in error.value.message for column in columns)
    assert all(name in error.value.hint for name in FORMATS)


def test_a_format_can_be_asked_for_by_name():
    row = Row("f", 1, {"chosen": "a b", "rejected": "a c"})
    assert recognise([row], "hh", "f").format.name == "hh"
    with pytest.raises(UserError, match="no format 'rankd'") as error:
        recognise([row], "rankd", "f")
    assert "ranked" in error.value.hint
