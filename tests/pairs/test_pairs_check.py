"""What would only be found out after all answers is found out before the first, and what was made is not lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from score_bed import make_model, with_head

from prefopt.errors import UserError
from prefopt.lock import present_at
from prefopt.make_pairs import make_pairs
from prefopt.pairs.finish import keep_unscored
from prefopt.pairs.folder import CANDIDATES, GENERATED, MANIFEST, PROMPTS, Folder, settings_text
from prefopt.pairs.prompts import read_prompts
from prefopt.pairs.stages import Generated
from prefopt.pairs_config import compose_pairs, deciding
from prefopt.pairs_dry_run import dry_run_lines
from prefopt.records import Candidate, Example, Message, example_to_json
from prefopt.stage_config import differing


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def reward(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_head(tiny, tmp_path_factory.mktemp("reward"), ["good"])


def prompts_in(folder: Path) -> Path:
    file = folder / "prompts.jsonl"
    file.write_text('{"prompt": "Hi"}\n{"prompt": "Why is the sky blue?"}\n')
    return file


def refused(folder: Path, *words: str, dry_run: bool = False) -> str:
    """What `prefopt pairs` says; nothing is left of it."""
    composed = compose_pairs([f"prompts={prompts_in(folder)}", "device=cpu", f"out={folder}/out", *words])
    with pytest.raises(UserError) as caught:
        make_pairs(composed, list(words), dry_run)
    assert not (folder / "out").exists()
    return str(caught.value)


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_model_of_the_wrong_kind_is_refused_before_anything_is_made(
    dry_run: bool, tiny: Path, reward: Path, tmp_path: Path
) -> None:
    def said(*words: str) -> str:
        return refused(tmp_path, "generate.max_new_tokens=8", *words, dry_run=dry_run)

    given = (f"policy={tiny}", f"reward={tiny}")
    assert said(*given).startswith(f"reward: {tiny} has no trained scalar head")
    assert "has no trained scalar head" in said(*given, "score=length", "margins=[{name: reward}]")
    assert said(f"policy={reward}", "score=length").startswith(f"policy: {reward} is a reward model")
    assert "reference: " in said(*given, "score=implicit", f"reference={reward}")
    assert "reward: " in said(f"policy={tiny}", f"reward={reward}", "score=good_bad")
    assert "has a head of one label" in said(f"policy={tiny}", f"reward={reward}", "score=reward_heads")
    assert said(f"policy={tiny}", "score=python", "score.function=judge_not_there:nice").startswith(
        "score.function: there is no module 'judge_not_there'"
    )


def test_a_limit_that_leaves_no_room_for_prompts_is_refused_with_the_largest_that_does(
    tiny: Path, tmp_path: Path
) -> None:
    words = (f"policy={tiny}", "score=length")
    said = refused(tmp_path, *words, "generate.max_new_tokens=256")
    assert f"generate.max_new_tokens=256: {tiny} has 256 positions" in said
    most = int(said.rpartition("=")[2])
    composed = compose_pairs([*words, f"prompts={prompts_in(tmp_path)}", f"generate.max_new_tokens={most}"])
    assert make_pairs(composed, [], dry_run=True) == 0
    # The byte-level tokenizer of the tiny model: its template writes the rest.
    assert 256 - most >= len("Why is the sky blue?")


def begun(folder: Path, *words: str) -> Folder:
    """A folder that a command has claimed, with two prompts and no answer."""
    folder.mkdir()
    settings = compose_pairs(["prompts=p", "policy=m", "score=length", "chunk_size=1", *words]).settings
    examples = [Example(f"p:{n}", (Message("user", "Hi"),), ()) for n in (1, 2)]
    (folder / PROMPTS).write_text("".join(example_to_json(example) + "\n" for example in examples))
    (folder / "pairs.yaml").write_text(settings_text(settings))
    (folder / MANIFEST).write_text(json.dumps({"settings": deciding(settings), "models": {}, "prompts": "0"}))
    return Folder(folder, settings)


def test_a_folder_in_which_nothing_was_made_takes_another_command_unless_one_works_in_it(tmp_path: Path) -> None:
    folder = begun(tmp_path / "out")
    words = [f"prompts={prompts_in(tmp_path)}", "generate=given", "score=length", f"out={folder.path}"]
    composed = compose_pairs(words)
    assert make_pairs(composed, words, dry_run=True) == 0
    with present_at(folder.path / MANIFEST), pytest.raises(UserError, match="holds other pairs"):
        make_pairs(composed, words, dry_run=True)
    folder.write_generated(0, [Generated(())])
    with pytest.raises(UserError, match="holds other pairs") as caught:
        make_pairs(composed, words, dry_run=True)
    assert caught.value.hint.endswith(f"if nobody wants them: rm -r {folder.path}")


def test_answers_without_scores_are_a_file_that_another_score_takes(tmp_path: Path) -> None:
    folder = begun(tmp_path / "out")
    said = ("Hello", "Hey")
    for chunk, answer in enumerate(said):
        assert not keep_unscored(folder)
        example = Example(f"p:{chunk + 1}", (Message("user", f"Hi {chunk}"),), (Candidate(answer),))
        folder.write_generated(chunk, [Generated((example,))])
    assert keep_unscored(folder)
    assert not keep_unscored(folder)
    read = list(read_prompts(str(folder.path / CANDIDATES), with_responses=True))
    assert [example.candidates[0].text for example in read if isinstance(example, Example)] == list(said)
    composed = compose_pairs(
        [f"prompts={prompts_in(tmp_path)}", "generate=given", "score=length", f"out={folder.path}"]
    )
    with pytest.raises(UserError) as caught:
        make_pairs(composed, [], dry_run=True)
    assert f"generate=given prompts={folder.path / CANDIDATES} out=FOLDER" in caught.value.hint
    assert caught.value.hint.startswith("another place by out=FOLDER; ")
    assert caught.value.hint.endswith(f"if nobody wants them: rm -r {folder.path}")
    assert (folder.path / GENERATED / "00000.jsonl").exists()


def test_only_what_differs_is_said(tmp_path: Path) -> None:
    words = ["prompts=p", "policy=m", "score=length"]
    there, here, other = (
        {"settings": deciding(compose_pairs([*words, *more]).settings), "models": models}
        for more, models in (
            ((), {"m": "a" * 64}),
            (("generate.n=4",), {"m": "b" * 64}),
            (("score=reward", "reward=r"), {"m": "a" * 64, "r": "c" * 64}),
        )
    )
    assert differing(there, there) == []
    assert differing(there, here) == [
        "settings.generate.n: 8 -> 4",
        f"models.m: other content (sha256 {'a' * 12} -> {'b' * 12})",
    ]
    assert differing(there, other) == ["settings.reward:  -> r", "settings.score.name: length -> reward"]


def test_a_dry_run_says_what_is_asked_of_whom_and_what_comes_out() -> None:
    settings = compose_pairs(
        ["prompts=p", "policy=[a,b]", "reward=r", "generate.n=3", "margins=[{name: length}]", "out=o", "chunk_size=4"]
    ).settings
    lines = dry_run_lines(settings, 10, 2)
    assert lines[0] == "prompts: 10 prompts, 2 left out; 3 chunks of 4 (p)"
    assert lines[1].startswith("generate: sample (n=3, ")
    assert lines[1].endswith("; 60 answers (10 prompts x 2 policies x 3)")
    assert lines[2] == "score: reward"
    assert lines[3].startswith("margins.0: length (")
    assert lines[5:8] == ["policy: a", "policy: b", "reward: r"]
    assert lines[8].startswith("out: o: pairs.jsonl (a row for each pair: prompt, chosen, rejected)")
    assert lines[-1] == "nothing is written"
