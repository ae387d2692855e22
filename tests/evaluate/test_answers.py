"""`measure=answers` on a tiny model: what is asked, what is kept, what a kill leaves, what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import TEMPLATE, make_model, prefopt

from prefopt.errors import UserError
from prefopt.evaluate.answer_files import Answer, id_of, read_answers
from prefopt.evaluate.measure import EvalPlace, Measured
from prefopt.evaluate.measures.answers import Answers
from prefopt.evaluate.settings import EvalSettings

MT_BENCH = [
    {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]},
    {"question_id": 90, "category": "writing", "turns": ["Compose.", "Shorter."]},
    {"question_id": 111, "category": "math", "turns": ["1 + 1?", "And 2?"]},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny") / "some-model")


def with_template(model: Path, folder: Path, template: str | None) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(model)
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def written(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def place(folder: Path, model: Path, **settings: Any) -> EvalPlace:
    folder.mkdir(exist_ok=True)
    return EvalPlace(EvalSettings(model=str(model), **settings), folder, str(model), None, "cpu")


def measure(folder: Path, model: Path, rows: list[Any], form: str, seed: int = 42, **more: Any) -> Measured:
    questions = written(folder.parent / "questions.jsonl", rows)
    return Answers(**{"questions": questions, "format": form, "max_new_tokens": 12, **more})(
        place(folder, model, seed=seed)
    )


def refusal(folder: Path, model: Path, rows: list[Any], form: str, **more: Any) -> str:
    with pytest.raises(UserError) as raised:
        measure(folder, model, rows, form, **more)
    assert not folder.exists() or not list(folder.iterdir()), "a refusal leaves nothing behind"
    return str(raised.value)


def said(folder: Path) -> dict[tuple[str, int], str]:
    return {(answer.id, answer.turn): answer.response for answer in read_answers(folder / "answers.jsonl")}


def test_every_question_has_one_answer_in_the_order_of_the_file(model: Path, tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {n}.", "dataset": "koala" if n % 2 else "oasst"} for n in range(5)]
    found = measure(tmp_path / "out", model, rows, "alpaca_eval", chunk_size=2)
    answers = read_answers(tmp_path / "out/answers.jsonl")
    assert [answer.prompt for answer in answers] == [row["instruction"] for row in rows]
    assert {answer.generator for answer in answers} == {"some-model"}
    outputs = json.loads((tmp_path / "out/model_outputs.json").read_text(encoding="utf-8"))
    assert outputs == [
        {**row, "output": answer.response, "generator": "some-model"} for row, answer in zip(rows, answers, strict=True)
    ]
    assert found.figures["alpaca_eval/answers"].value == 5
    assert found.figures["alpaca_eval/koala/answers"].value == 2
    assert "decoding: the likeliest token each time (temperature=0), max_new_tokens=12" in found.notes
    assert [row["id"] for row in found.rows] == [id_of(row["instruction"]) for row in rows]
    assert "5 questions, where the published set has 805" in found.notes[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "the likeliest token each time (temperature=0), max_new_tokens=512"),
        ({"temperature": 0.7, "top_p": 0.9}, "sampled, temperature=0.7, top_p=0.9, max_new_tokens=512"),
        ({"format": "mt_bench"}, "sampled, temperature by category, top_p=1, max_new_tokens=1024"),
    ],
)
def test_a_note_says_how_answers_are_decoded(settings: dict[str, Any], said: str) -> None:
    assert Answers(questions="q", **settings).decoding() == said


def test_figures_are_means_over_the_answers(model: Path, tmp_path: Path) -> None:
    found = measure(tmp_path / "out", model, ["One?", "Two?", "Three?"], "prompts", temperature=1.0)
    answers = read_answers(tmp_path / "out/answers.jsonl")
    expected = {
        "answers": len(answers),
        "tokens": sum(answer.tokens or 0 for answer in answers) / 3,
        "stopped": sum(bool(answer.stopped) for answer in answers) / 3,
        "empty": sum(not answer.response.strip() for answer in answers) / 3,
        "distinct": len({answer.response for answer in answers}) / 3,
    }
    assert {name: figure.value for name, figure in found.figures.items()} == {
        f"prompts/{name}": pytest.approx(value) for name, value in expected.items()
    }


def test_the_greedy_answer_is_that_of_transformers_on_the_rendered_prompt(model: Path, tmp_path: Path) -> None:
    measure(tmp_path / "out", model, [{"uid": "0a", "prompt": "Say one."}], "arena_hard_v2")
    tokenizer, policy = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).eval()
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say one."}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    made = policy.generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=2)[0, ids["input_ids"].shape[1] :]
    assert said(tmp_path / "out") == {("0a", 1): tokenizer.decode(made, skip_special_tokens=True).strip()}


def test_the_second_turn_is_asked_in_the_conversation_with_the_first_answer(model: Path, tmp_path: Path) -> None:
    measure(tmp_path / "two", model, MT_BENCH, "mt_bench")
    turns = said(tmp_path / "two")
    talks = [
        [
            {"role": "user", "content": row["turns"][0]},
            {"role": "assistant", "content": turns[str(row["question_id"]), 1]},
            {"role": "user", "content": row["turns"][1]},
        ]
        for row in MT_BENCH
    ]
    rows = [{"messages": talk} for talk in talks]
    measure(tmp_path / "hot", model, rows[:2], "prompts", temperature=0.7)
    measure(tmp_path / "cold", model, rows[2:], "prompts", temperature=0.0)
    alone = [*said(tmp_path / "hot").values(), *said(tmp_path / "cold").values()]
    assert alone == [turns[str(row["question_id"]), 2] for row in MT_BENCH]


def test_temperatures_are_those_of_fastchat_by_category_unless_one_is_given(model: Path, tmp_path: Path) -> None:
    found = measure(tmp_path / "table", model, MT_BENCH, "mt_bench")
    assert "temperatures by category, as FastChat has them: math 0, writing 0.7" in found.notes
    measure(tmp_path / "greedy", model, MT_BENCH, "mt_bench", temperature=0.0)
    table, greedy = said(tmp_path / "table"), said(tmp_path / "greedy")
    assert {key for key in table if table[key] == greedy[key]} == {("111", 1), ("111", 2)}


def test_mt_bench_rows_have_both_turns_and_the_number_of_the_question(model: Path, tmp_path: Path) -> None:
    measure(tmp_path / "out", model, MT_BENCH, "mt_bench", generator="mine")
    text = (tmp_path / "out/mt_bench/model_answer/mine.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line]
    turns = said(tmp_path / "out")
    assert [(row["question_id"], row["choices"][0]["turns"]) for row in rows] == [
        (row["question_id"], [turns[str(row["question_id"]), turn] for turn in (1, 2)]) for row in MT_BENCH
    ]


def test_a_turn_that_is_too_long_is_counted_and_its_question_not_exported(model: Path, tmp_path: Path) -> None:
    rows = [
        *MT_BENCH,
        {"question_id": 99, "category": "writing", "turns": ["Write.", "x" * 300]},
        {"question_id": 100, "category": "writing", "turns": ["x" * 300, "Again."]},
    ]
    found = measure(tmp_path / "out", model, rows, "mt_bench")
    assert found.left_out == {"prompt too long": 2, "the turn before could not be asked": 1}
    assert ("99", 1) in said(tmp_path / "out")
    text = (tmp_path / "out/mt_bench/model_answer/some-model.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["question_id"] for line in text.split("\n") if line] == [81, 90, 111]
    assert "mt_bench/model_answer/some-model.jsonl has the 3 questions answered in all turns" in found.notes


def test_a_set_of_which_nothing_can_be_asked_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of its 2 questions could be asked: 2 prompt too long"):
        measure(tmp_path / "out", model, ["x" * 300, "y" * 300], "prompts")
    assert not (tmp_path / "out/answers.jsonl").exists()


def test_a_finished_folder_is_not_asked_again_and_another_seed_is_refused(model: Path, tmp_path: Path) -> None:
    rows = [{"uid": str(n), "prompt": f"Say {n}."} for n in range(3)]
    first = measure(tmp_path / "out", model, rows, "arena_hard_v0.1", temperature=1.0)
    export = tmp_path / "out/arena-hard-v0.1/model_answer/some-model.jsonl"
    before = export.read_bytes()
    questions = str(tmp_path / "questions.jsonl")
    again = Answers(questions=questions, format="arena_hard_v0.1", max_new_tokens=12, temperature=1.0)
    gone = replace(place(tmp_path / "out", model), device="meta")  # a device on which nothing could be answered
    assert again(gone) == first
    assert export.read_bytes() == before
    with pytest.raises(UserError, match=r"holds other answers.*seed: 42 -> 43"):
        measure(tmp_path / "out", model, rows, "arena_hard_v0.1", temperature=1.0, seed=43)


def test_a_template_with_one_bos_is_said_to_have_one(model: Path, tmp_path: Path) -> None:
    folder = with_template(model, tmp_path / "one", "{{ bos_token }}" + TEMPLATE)
    found = measure(tmp_path / "out", folder, [{"uid": "a", "prompt": "Say."}], "arena_hard_v2")
    assert "each of the 1 prompts begins with exactly one BOS" in found.notes


def test_a_template_without_bos_is_said_to_have_none(model: Path, tmp_path: Path) -> None:
    found = measure(tmp_path / "out", model, [{"uid": "a", "prompt": "Say."}], "arena_hard_v2")
    assert any(note.startswith("none of the 1 prompts begins with a BOS") for note in found.notes)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ bos_token }}{{ bos_token }}" + TEMPLATE, "begins with two BOS"),
        ("{{ bos_token }}" + TEMPLATE.replace("<|{{ m", "{{ bos_token }} <|{{ m", 1), "two BOS"),
        ("{{ bos_token }}" + TEMPLATE.replace("{{ m['content']", "{{ bos_token + m['content']", 1), "puts 2 BOS"),
    ],
)
def test_a_template_with_a_second_bos_is_refused(model: Path, tmp_path: Path, template: str, words: str) -> None:
    folder = with_template(model, tmp_path / "two", template)
    assert words in refusal(tmp_path / "out", folder, [{"uid": "a", "prompt": "Say."}], "arena_hard_v2")


def test_a_model_without_a_template_is_refused_with_the_key_that_gives_one(model: Path, tmp_path: Path) -> None:
    folder = with_template(model, tmp_path / "none", None)
    words = refusal(tmp_path / "out", folder, [{"uid": "a", "prompt": "Say."}], "arena_hard_v2")
    assert "has no chat template" in words
    assert "chat_template=" in words


def test_an_answer_longer_than_the_positions_is_refused(model: Path, tmp_path: Path) -> None:
    words = refusal(tmp_path / "out", model, MT_BENCH, "mt_bench", max_new_tokens=None)
    assert words.startswith("measure.max_new_tokens=1024:")


def test_a_stop_that_is_no_token_is_refused(model: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path / "out", model, MT_BENCH, "mt_bench", stop=["<nope>"]).startswith("measure.stop: '<nope>'")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"format": "alpaca"}, "format must be one of"),
        ({"temperature": -1.0}, "temperature must be 0 or more, not -1"),
        ({"top_p": 0.9}, "temperature 0 takes the likeliest token"),
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 or more, not 0"),
        ({"generator": "org/model"}, "generator names a file"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Answers(**{"questions": "q.jsonl", **settings})


_CALL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_answers import COMMAND, place
COMMAND(sys.argv[4])(place(Path(sys.argv[2]), Path(sys.argv[3])))
"""


def COMMAND(questions: str) -> Answers:
    return Answers(questions=questions, format="mt_bench", temperature=1.0, max_new_tokens=40, chunk_size=2)


@pytest.mark.slow
def test_a_kill_at_any_moment_goes_on_and_ends_with_the_same_bytes(model: Path, tmp_path: Path) -> None:
    rows = [
        {"question_id": n, "category": "stem", "turns": [f"Tell me of {n}.", f"And of {n + 1}?"]} for n in range(24)
    ]
    questions = written(tmp_path / "questions.jsonl", rows)
    COMMAND(questions)(place(tmp_path / "whole", model))
    out = tmp_path / "killed"
    words = [sys.executable, "-c", _CALL, str(Path(__file__).parent), str(out), str(model), questions]
    kept: dict[Path, int] = {}
    for wanted in ("turn-1/00003.jsonl", "turn-2/00002.jsonl"):
        process = subprocess.Popen(words)
        limit = time.monotonic() + 120
        while not (out / "answered" / wanted).exists():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < limit
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (out / "answers.jsonl").exists()
        assert kept.items() <= times(out).items(), "what was answered was answered again"
        kept = times(out)
    COMMAND(questions)(place(out, model))
    assert kept.items() <= times(out).items()
    assert (out / "answers.jsonl").read_bytes() == (tmp_path / "whole/answers.jsonl").read_bytes()
    assert sorted(said(out)) == sorted((str(n), turn) for n in range(24) for turn in (1, 2))
    one, other = (exported(folder) for folder in (tmp_path / "whole", out))
    assert one == other
    assert not list(out.rglob("*.tmp-*"))


def times(out: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in (out / "answered").rglob("*.jsonl") if ".tmp-" not in file.name}


def exported(folder: Path) -> list[dict[str, Any]]:
    """Without the time, which is that of each folder's first start."""
    (file,) = (folder / "mt_bench/model_answer").glob("*.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    return [{key: value for key, value in row.items() if key != "tstamp"} for row in rows]


def test_a_damaged_chunk_is_named(model: Path, tmp_path: Path) -> None:
    measure(tmp_path / "out", model, MT_BENCH, "mt_bench")
    chunk = tmp_path / "out/answered/turn-1/00000.jsonl"
    chunk.write_text(chunk.read_text(encoding="utf-8").replace('{"id"', "{id", 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"00000.jsonl:1 is damaged"):
        measure(tmp_path / "out", model, MT_BENCH, "mt_bench")


def test_an_answer_keeps_what_the_models_tokens_say(model: Path, tmp_path: Path) -> None:
    measure(tmp_path / "out", model, [{"uid": "a", "prompt": "Say."}], "arena_hard_v2", stop=["e"])
    (answer,) = read_answers(tmp_path / "out/answers.jsonl")
    assert isinstance(answer, Answer)
    assert answer.tokens is not None
    assert answer.stopped == (answer.tokens < 12)


def test_shares_of_the_work_are_the_whole_work(model: Path, tmp_path: Path) -> None:
    rows = [{"question_id": n, "category": "writing", "turns": [f"Say {n}.", "Again."]} for n in range(7)]
    whole = measure(tmp_path / "whole", model, rows, "mt_bench", chunk_size=2)
    shared = Answers(questions=str(tmp_path / "questions.jsonl"), format="mt_bench", max_new_tokens=12, chunk_size=2)
    for number in (1, 0):
        shared.work(place(tmp_path / "shared", model), number, 2)
    nowhere = replace(place(tmp_path / "shared", model), device="meta")  # nothing is left to be answered there
    assert shared(nowhere) == whole
    assert said(tmp_path / "shared") == said(tmp_path / "whole")


@pytest.mark.slow
def test_the_command_answers_and_shows_its_figures(model: Path, tmp_path: Path) -> None:
    questions = written(tmp_path / "questions.jsonl", MT_BENCH)
    words = ["eval", f"model={model}", "measure=answers", f"measure.questions={questions}", "measure.format=mt_bench"]
    words += ["measure.max_new_tokens=8", f"out={tmp_path / 'out'}", "device=cpu"]
    done = prefopt(words, tmp_path / "cache", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mt_bench" in done.stdout
    assert len(read_answers(tmp_path / "out/answers.jsonl")) == 6
    found = json.loads((tmp_path / "out/figures.json").read_text(encoding="utf-8"))
    assert found["figures"]["mt_bench/answers"]["value"] == 6
    refused = prefopt([*words[:3], "measure.format=mt_bench"], tmp_path / "cache", tmp_path)
    assert refused.returncode == 2
    assert "measure.questions: there is nothing to ask" in refused.stderr
