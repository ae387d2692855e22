"""Answers as texts: hand-computed shares, real answer files, before and after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefopt.errors import UserError
from prefopt.evaluate import text_quality as quality
from prefopt.evaluate.measure import EvalPlace, Measured
from prefopt.evaluate.measures.quality import Quality
from prefopt.evaluate.settings import EvalSettings

SHARED = Path(__file__).resolve().parents[3] / "shared"
OUTPUTS = SHARED / "data" / "alpaca_eval" / "outputs"
ARENA = SHARED / "data" / "arena_hard" / "v0.1_answer_gpt-3.5-turbo-0125.jsonl.gz"
needs_shared = pytest.mark.skipif(not OUTPUTS.is_dir(), reason="needs ../shared/data/alpaca_eval")


def measure(settings: Quality, tmp_path: Path, seed: int = 42) -> Measured:
    return settings(EvalPlace(EvalSettings(resamples=200, seed=seed), tmp_path, "", None, "cpu"))


def write(path: Path, texts: list[str], **more: list) -> str:
    rows = [
        {"id": f"q{i}", "prompt": f"p{i}", "response": text, "generator": "m", **{k: v[i] for k, v in more.items()}}
        for i, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_words_stand_between_white_space_and_chinese_characters_are_words() -> None:
    assert quality.words_of("It's  a dog.\nYes") == ["It's", "a", "dog.", "Yes"]
    assert quality.words_of("我们用GPT-4，好") == ["我", "们", "用", "GPT-4，", "好"]


def test_a_loop_of_p_words_repeats_all_but_p_of_its_4_grams() -> None:
    assert quality.repetition("a b " * 10) == pytest.approx(1 - 2 / 17)
    assert quality.repetition("好" * 20) == pytest.approx(1 - 1 / 17)
    assert quality.repetition("a b c d e f") == 0
    assert quality.repetition("a a a") == 0


def test_distinct_counts_n_grams_of_all_texts_together() -> None:
    texts = ["a b a", "a b", ""]
    assert quality.distinct(texts, 1) == 2 / 5
    assert quality.distinct(texts, 2) == 2 / 3
    assert quality.distinct(texts, 3) == 1
    assert quality.distinct(texts, 4) is None


def test_self_bleu_of_equal_texts_is_1_and_of_texts_without_a_common_word_0() -> None:
    assert quality.self_bleu(["a b c d e"] * 3) == pytest.approx([1, 1, 1])
    assert quality.self_bleu(["a b c d e", "f g h i j"]) == [0, 0]


def test_self_bleu_of_two_is_the_hand_computed_one() -> None:
    # "a b c d e" against "a b c d f g": p = 4/5, 3/4, 2/3, 1/2; the other is one word longer: exp(1 - 6/5).
    # Back: 4/6, 3/5, 2/4, 1/3, no penalty.
    found = quality.self_bleu(["a b c d e", "a b c d f g"])
    assert found[0] == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 / 2) ** 0.25 * 2.718281828459045**-0.2)
    assert found[1] == pytest.approx((4 / 6 * 3 / 5 / 2 / 3) ** 0.25)


def test_self_bleu_clips_a_word_at_the_most_that_one_other_text_has() -> None:
    # "a a a a": of its 4 words 2 count, of its 3 pairs 1; orders 3 and 4 get 0.1 matches; nearest length is 2: none.
    assert quality.self_bleu(["a a a a", "a a", "a b"])[0] == pytest.approx((2 / 4 * 1 / 3 * 0.1 / 2 * 0.1 / 1) ** 0.25)


@needs_shared
def test_self_bleu_is_that_of_nltk_on_real_answers() -> None:
    bleu = pytest.importorskip("nltk.translate.bleu_score")
    from prefopt.evaluate.answer_files import read_answers

    texts = [a.response for a in read_answers(OUTPUTS / "alpaca-7b.json.gz")[:30]]
    words = [quality.words_of(text) for text in texts]
    smooth = bleu.SmoothingFunction(epsilon=0.1).method1
    theirs = [
        bleu.sentence_bleu([w for j, w in enumerate(words) if j != i], own, smoothing_function=smooth)
        for i, own in enumerate(words)
    ]
    assert quality.self_bleu(texts) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "  “I’m sorry, but I cannot do this.”",
        "**As an AI language model, I don't have opinions.**",
        "对不起，我无法提供这类信息。",
        "作为一个AI语言模型，我不能回答。",
    ],
)
def test_openings_of_refusals_are_known(text: str) -> None:
    assert quality.is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that! Here is what helps:",
        "Sure. I can't wait!",
        "You cannot do this in C.",
        "",
        "抱歉让你久等了",
    ],
)
def test_what_only_resembles_a_refusal_is_none(text: str) -> None:
    assert not quality.is_refusal(text)


def test_openings_are_written_as_texts_are_compared() -> None:
    openings = quality.refusal_openings()
    assert len(openings) > 80
    assert len(set(openings)) == len(openings)
    assert all(line == line.lower() and "’" not in line for line in openings)


def test_six_answers_give_the_hand_computed_figures(tmp_path: Path) -> None:
    texts = ["one two three", "one two three\n", "", "I cannot help with that.", "四个字吗", "x " * 8]
    path = write(tmp_path / "a.jsonl", texts, stopped=[True, True, False, True, None, False], tokens=[3, 3, 0, 6, 5, 8])
    found = measure(Quality(answers=path), tmp_path)
    values = {name: figure.value for name, figure in found.figures.items()}
    assert values["answers/length/words"] == pytest.approx((3 + 3 + 0 + 5 + 4 + 8) / 6)
    assert values["answers/length/tokens"] == pytest.approx(25 / 6)
    assert values["answers/repetition"] == pytest.approx(0.8 / 6)
    assert (values["answers/empty"], values["answers/refusal"]) == (pytest.approx(1 / 6), pytest.approx(1 / 6))
    assert found.figures["answers/stopped"].count == 5
    assert values["answers/stopped"] == 0.6
    assert (values["answers/identical"], values["answers/most_common"]) == (pytest.approx(2 / 6), pytest.approx(2 / 6))
    assert found.figures["answers/self_bleu"].count == 5
    assert found.notes == (
        "answers: 1 of 6 answers do not say how they ended",
        "answers/self_bleu leaves 1 empty answers out",
    )


def test_before_and_after_are_cut_to_common_questions_and_subtracted(tmp_path: Path) -> None:
    before = write(tmp_path / "b.jsonl", ["a", "a b", "a b c"])
    after = write(tmp_path / "a.jsonl", ["a b", "a b c", "a b c d", "e f g h i j"])
    found = measure(Quality(answers=after, before=before), tmp_path)
    gap = found.figures["difference/length/words"]
    assert (gap.value, gap.low, gap.high, gap.count) == (1, 1, 1, 3)
    assert found.left_out == {"answer to a question that before does not have": 1}
    assert found.figures["answers/length/words"].count == 3
    distinct = [found.figures[f"{name}/distinct/1"].value for name in ("answers", "before", "difference")]
    assert distinct == pytest.approx([4 / 9, 3 / 6, 4 / 9 - 3 / 6])
    assert [row["of"] for row in found.rows] == ["answers"] * 3 + ["before"] * 3
    table = {row["figure"]: row for row in found.tables["before_and_after"]}
    assert (table["length/words"]["before"], table["length/words"]["answers"]) == (2, 3)


def test_samples_of_a_run_are_before_and_after(tmp_path: Path) -> None:
    rows = [{"id": str(i), "prompt": "p", "before": "a", "after": "a b c", "chosen": "x"} for i in range(3)]
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = measure(Quality(answers=str(path)), tmp_path)
    assert found.figures["difference/length/words"].value == 2
    with pytest.raises(UserError, match=r"measure\.before: .* has the answers from before training itself"):
        measure(Quality(answers=str(path), before=str(path)), tmp_path)


def test_answers_to_other_questions_cannot_be_compared(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", ["a"])
    Path(tmp_path / "b.jsonl").write_text(Path(one).read_text().replace('"q0"', '"r0"'))
    with pytest.raises(UserError, match="no question is answered in both files"):
        measure(Quality(answers=one, before=str(tmp_path / "b.jsonl")), tmp_path)


def test_self_bleu_of_a_drawn_part_says_so_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [f"a b c {i} {i % 7}" for i in range(40)])
    settings = Quality(answers=path, self_bleu_answers=10)
    one, two = measure(settings, tmp_path), measure(settings, tmp_path)
    assert one.figures["answers/self_bleu"] == two.figures["answers/self_bleu"]
    assert one.figures["answers/self_bleu"].count == 10
    assert "answers/self_bleu is over 10 of 40 answers, drawn with seed 42" in one.notes
    assert "answers/self_bleu" not in measure(Quality(answers=path, self_bleu_answers=0), tmp_path).figures


@pytest.mark.slow
@needs_shared
def test_the_constant_answer_of_the_null_model_is_seen_and_no_other_model_has_one(tmp_path: Path) -> None:
    for path in sorted(OUTPUTS.glob("*.json.gz")):
        figures = measure(Quality(answers=str(path), self_bleu_answers=50), tmp_path).figures
        is_null = path.name.startswith("NullModel")
        assert (figures["answers/most_common"].value == 1) == is_null, path.name
        assert (figures["answers/identical"].value == 1) == is_null, path.name
        assert (figures["answers/self_bleu"].value > 0.999) == is_null, path.name
        assert figures["answers/most_common"].value < 0.04 or is_null, path.name


@needs_shared
def test_answers_of_the_null_model_are_one_answer(tmp_path: Path) -> None:
    figures = measure(Quality(answers=str(OUTPUTS / "NullModel.json.gz"), self_bleu_answers=0), tmp_path).figures
    assert (figures["answers/most_common"].value, figures["answers/most_common"].count) == (1.0, 805)
    assert figures["answers/length/characters"].value == 872


@needs_shared
def test_empty_answers_of_real_files_are_as_many_as_recorded(tmp_path: Path) -> None:
    for name, empty in (("gemma-2b-it", 22), ("text_davinci_003", 2)):
        found = measure(Quality(answers=str(OUTPUTS / f"{name}.json.gz"), self_bleu_answers=0), tmp_path)
        assert round(found.figures["answers/empty"].value * 805) == empty


@needs_shared
def test_told_to_be_verbose_alpaca_writes_longer_than_told_to_be_concise(tmp_path: Path) -> None:
    settings = Quality(
        answers=str(OUTPUTS / "alpaca-7b_verbose.json.gz"),
        before=str(OUTPUTS / "alpaca-7b_concise.json.gz"),
        self_bleu_answers=0,
    )
    found = measure(settings, tmp_path)
    gap = found.figures["difference/length/words"]
    assert gap.low is not None
    assert gap.low > 20
    assert sum(found.left_out.values()) == (804 - gap.count) + (802 - gap.count)
    assert {row["category"] for row in found.tables["categories"]} >= {"helpful_base", "koala", "vicuna"}


@pytest.mark.slow
@needs_shared
def test_arena_hard_files_are_read_and_a_tokenizer_counts_tokens(tmp_path: Path) -> None:
    model = SHARED / "models" / "stories260K"
    found = measure(Quality(answers=str(ARENA), tokenizer=str(model), self_bleu_answers=0), tmp_path)
    assert found.figures["answers/length/tokens"].count == 500
    assert found.figures["answers/length/tokens"].value > found.figures["answers/length/words"].value
    assert 0 <= found.figures["answers/token_repetition"].value < 0.5


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "answers must be given"),
        ({"answers": "a", "before": ""}, "before must be"),
        ({"answers": "a", "self_bleu_answers": 1}, "self_bleu_answers must be 0, or 2 or more, not 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Quality(**settings)
