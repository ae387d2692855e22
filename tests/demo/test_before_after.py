"""The report of a demo run says what happened, on any terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from prefopt import demo
from prefopt.demo.before_after import Sample, first_of_each_kind
from prefopt.errors import UserError

COW = "A cow makes which noise?"
HOT = "Hot is the reverse of what?"
BEST = " Sure thing! A cow moos. I hope that helps!"  # utility 3
RUDE = " Not again. A cow moos. Now go away."  # utility 1
LIE = " Happy to help! A cow barks. Have a nice day!"  # utility 1
WORST = " Not again. A cow barks. Now go away."  # utility -1


def write_run(folder: Path, answers: list[tuple[str, str, str, str]]) -> Path:
    """A run folder; answers: (prompt, before, after, chosen) each."""
    rows = [
        {"id": f"heldout.jsonl:{i}", "prompt": p, "before": b, "after": a, "chosen": c, "rejected": WORST}
        for i, (p, b, a, c) in enumerate(answers, start=1)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    metrics = "eval/heldout/loss", "eval/heldout/rewards/accuracy", "eval/heldout/rewards/margin"
    result = {
        "before": dict(zip(metrics, (0.9, 0.605, 0.057))),
        "after": dict(zip(metrics, (0.6, 0.996, 0.4221))),
        "seconds": 12.3,
    }
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


def shown(run_dir: Path, width: int = 100, encoding: str = "utf-8") -> str:
    """What a non-terminal of that width gets, as bytes of that encoding and back."""
    buffer = io.BytesIO()
    file = io.TextIOWrapper(buffer, encoding=encoding, errors="strict")
    demo.report(run_dir, Console(file=file, width=width, force_terminal=False, no_color=True))
    file.flush()
    return buffer.getvalue().decode(encoding)


def cells(text: str, label: str) -> list[str]:
    """The words of the table's row that begins with `label`."""
    (line,) = (line for line in text.splitlines() if line.startswith(("│ " + label + " ", "| " + label + " ")))
    return [cell.strip() for cell in line.replace("|", "│").strip(" │").split("│")][1:]


def test_report_gives_the_measures_of_the_samples(tmp_path: Path) -> None:
    answers = [
        (COW, WORST, BEST, RUDE),  # loses, wins
        (COW, RUDE, BEST, BEST),  # loses, ties
        (COW, RUDE, LIE, RUDE),  # ties, ties
        (COW, "gibberish", BEST, RUDE),  # loses, wins
    ]
    text = shown(write_run(tmp_path, answers))
    assert cells(text, "reward accuracy") == ["60.5 %", "99.6 %"]
    assert cells(text, "reward margin") == ["0.057", "0.422"]
    assert cells(text, "win rate") == ["12.5 %", "75.0 %"]
    assert cells(text, "polite") == ["0.0 %", "100.0 %"]
    assert cells(text, "rude") == ["75.0 %", "0.0 %"]
    assert cells(text, "fact right") == ["50.0 %", "75.0 %"]
    assert "12 s" in text


def test_answers_stand_side_by_side_with_their_prompt(tmp_path: Path) -> None:
    text = shown(write_run(tmp_path, [(COW, WORST, BEST, RUDE)]), width=160)
    assert cells(text, COW) == [WORST.strip(), BEST.strip()]


def test_shown_prompts_differ_and_cover_the_kinds_first() -> None:
    samples = [Sample(p, "", "", "") for p in (COW, COW, "A cat makes which noise?", HOT, "What else?", COW)]
    prompts = [s.prompt for s in first_of_each_kind(samples, 5)]
    assert prompts == [COW, HOT, "What else?", "A cat makes which noise?"]
    assert [s.prompt for s in first_of_each_kind(samples, 2)] == [COW, HOT]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [40, 60, 200])
def test_report_fits_its_width_and_survives_any_text(tmp_path: Path, width: int, encoding: str) -> None:
    wild = "\x1b[31m [/bold] [red] 中文 \ufffd\x00\n\n" + "word " * 60
    text = shown(write_run(tmp_path, [(COW, wild, "", BEST)]), width, encoding)
    assert "\x1b" not in text
    assert "[/bold]" in text
    assert all(len(line) <= width for line in text.splitlines())
    assert cells(text, "reward accuracy" if width > 40 else "win rate")


def test_rows_of_another_world_have_no_right_answer(tmp_path: Path) -> None:
    text = shown(write_run(tmp_path, [("Who are you?", RUDE, BEST, BEST)]))
    assert "fact right" not in text
    assert cells(text, "polite") == ["0.0 %", "100.0 %"]


def test_a_run_without_samples_shows_its_rewards_and_no_word_of_answers(tmp_path: Path) -> None:
    write_run(tmp_path, [])
    (tmp_path / "samples.jsonl").unlink()
    text = shown(tmp_path)
    assert cells(text, "reward accuracy") == ["60.5 %", "99.6 %"]
    assert "│ -" not in text
    assert not any(word in text for word in ("win rate", "Win rate", "polite", "sample.count"))


def test_a_run_with_neither_held_out_pairs_nor_answers_says_that_there_is_nothing_to_compare(tmp_path: Path) -> None:
    (write_run(tmp_path, []) / "result.json").write_text('{"before": {}, "after": {}, "seconds": 2}')
    text = shown(tmp_path)
    assert text.startswith("Nothing to compare")
    assert "│" not in text


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no result\.json"):
        shown(tmp_path)
    write_run(tmp_path, [(COW, WORST, BEST, RUDE)])
    with open(tmp_path / "samples.jsonl", "a", encoding="utf-8") as file:
        file.write('{"prompt": "A cow')
    with pytest.raises(UserError, match=r"samples\.jsonl, line 2"):
        shown(tmp_path)
