"""What a user gets wrong at first on the command line is answered with the word that is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefopt.config import compose
from prefopt.errors import UserError
from prefopt.eval_config import compose_eval
from prefopt.evaluate.answer_files import read_answers
from prefopt.evaluate.measure import unit_of
from prefopt.evaluate.measures.preferences import Preferences
from prefopt.evaluate.measures.win_rate import WinRate
from prefopt.pairs.called import called
from prefopt.pairs.prompts import read_prompts
from prefopt.pairs_check import fingerprints
from prefopt.pairs_config import compose_pairs


def run_in(folder: Path) -> Path:
    """A run's folder, as far as file names tell."""
    (folder / "model").mkdir(parents=True)
    (folder / "run.yaml").touch()
    (folder / "model" / "config.json").write_text("{}")
    return folder


def test_a_path_that_stands_alone_is_given_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_in(Path("runs/a"))
    for word, key in (("runs/a", "run"), ("runs/a/model", "model"), ("owner/name", "model"), ("answers", "measure")):
        with pytest.raises(UserError) as caught:
            compose_eval([word])
        assert str(caught.value) == f"{word}: expected key=value\n  for instance {key}={word}"
    for word, key in ((f"{run}/model", "policy"), ("chat.jsonl", "prompts"), ("rso", "recipe")):
        with pytest.raises(UserError) as caught:
            compose_pairs([word])
        assert caught.value.hint == f"for instance {key}={word}"


def test_a_run_in_place_of_its_model_is_refused_by_the_users_key_with_the_model(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    for key in ("policy", "reward"):
        words = {"policy": f"policy={tmp_path / 'm'}", "reward": "reward=r"} | {key: f"{key}={run}"}
        settings = compose_pairs(["prompts=p", *words.values()]).settings
        if key == "reward":
            settings.policy = ""
        with pytest.raises(UserError) as caught:
            fingerprints(settings)
        assert str(caught.value) == f"{key}: {run} has no config.json\n  did you mean {run}/model?"


def test_a_message_about_a_key_of_training_that_was_not_given_keeps_its_kind() -> None:
    with pytest.raises(UserError) as caught, called("reward"):
        raise UserError("model.path: gone", "hint", 1)
    assert (str(caught.value), caught.value.exit_code) == ("reward: gone\n  hint", 1)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("data.train=chat.jsonl", "for instance 'data.train=[{path: chat.jsonl}]'"),
        ("data.eval=chat.jsonl", "for instance 'data.eval={heldout: {path: chat.jsonl}}'"),
        ("model.lora=16", "for instance 'model.lora={r: 16}'"),
        ("data.train='a file'", "for instance 'data.train=[{path: FILE}]'"),
        ("data.train=[chat.jsonl]", "for instance 'data.train=[{path: chat.jsonl}]'"),
        (
            "data.train=[a.csv, {path: b.csv}, 'c d']",
            "for instance 'data.train=[{path: a.csv}, {path: b.csv}, {path: FILE}]'",
        ),
        ("data.train={path: a.csv}", "for instance 'data.train=[{path: a.csv}]'"),
        (
            "data.train=a.csv,b.csv",
            "add -m to run each, or write 'data.train=[{path: a.csv}, {path: b.csv}]' for a list",
        ),
        ("data.eval=[chat.jsonl]", "for instance 'data.eval={heldout: {path: chat.jsonl}}'"),
        ("data.eval.h=chat.jsonl", "for instance 'data.eval={h: {path: chat.jsonl}}'"),
        ("data.train=[{path=a.csv}]", "for instance 'data.train=[{path: FILE}]', with the quotes"),
        (
            "data.train=[{path:",  # of data.train=[{path: a.csv}] without quotes
            "a bracket is not closed: the shell ends a word at a blank, unless quotes are round all of it, "
            "'data.train=[{path: FILE}]'",
        ),
    ],
)
def test_where_a_list_or_a_mapping_is_expected_one_is_shown(word: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        compose(["loss=dpo", word])
    assert caught.value.hint == hint


def test_measures_and_pairs_show_one_too() -> None:
    with pytest.raises(UserError) as caught:
        compose_eval(["model=m", "measure.sets=pairs.jsonl"])
    assert caught.value.hint == "for instance 'measure.sets={heldout: pairs.jsonl}'"
    assert compose_eval(["model=m", "measure.sets={heldout: pairs.jsonl}"]).settings.measure["sets"]
    with pytest.raises(UserError) as caught:
        compose_pairs(["prompts=p", "policy=m", "score=length", "avoid=a.jsonl"])
    assert caught.value.hint == "for instance 'avoid=[a.jsonl]'"


def test_a_folder_of_answers_is_refused_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text(json.dumps({"id": "1", "prompt": "Hi", "response": "x"}) + "\n")
    with pytest.raises(UserError) as caught:
        read_answers(tmp_path)
    assert caught.value.hint == f"did you mean {tmp_path}/answers.jsonl?"


def test_a_text_file_of_prompts_is_refused_with_what_a_line_has_to_be(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("Hi\n")
    with pytest.raises(UserError) as caught:
        read_prompts(str(tmp_path / "prompts.txt"))
    assert 'one JSON object a line, {"prompt": "..."}' in caught.value.hint


def test_figures_have_their_units() -> None:
    rates = WinRate.units
    assert [unit_of(name, rates) for name in ("win_rate", "longer/win_rate", "win_rate/length")] == ["%"] * 3
    assert unit_of("length/model", rates) == "characters"
    assert unit_of("estimate/calls", rates) == ""
    held_out = Preferences.units
    assert unit_of("heldout/rewards/accuracy", held_out) == "share"
    assert unit_of("heldout/rewards/accuracy/length", held_out) == "share"
    assert unit_of("heldout/mean_logps/chosen", held_out) == "nats per token"
    assert unit_of("heldout/logps/chosen", held_out) == "nats"
