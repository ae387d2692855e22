"""What a loop's recipe may say, what becomes of it, and the sentence for whatever it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from prefopt.cli import main
from prefopt.errors import UserError
from prefopt.rounds.check import check
from prefopt.rounds.compose import compose
from prefopt.rounds.placeholders import Value, fill
from prefopt.rounds.settings import Loop
from prefopt.rounds.unfold import Command, assigned, unfold

LOOP: dict[str, Any] = {
    "rounds": 2,
    "inputs": {"policy": "START", "rows": "ROWS", "rate": 1.0e-4, "more": ["loss.beta=0.2", "train.seed={round}"]},
    "carry": {"policy": {"first": "{inputs.policy}", "then": "{train.model}"}},
    "before": [{"name": "sft", "run": "train", "with": ["loss=sft", "model.path={inputs.policy}"]}],
    "steps": [
        {"name": "data", "run": "pairs", "with": ["policy={policy}", "reference={sft.model}", "seed={seed}{round}"]},
        {
            "name": "train",
            "run": "train",
            "with": [
                "model.path={policy}",
                "data.train=[{path: {data.pairs}}]",
                "optim.lr={inputs.rate}",
                "{inputs.more}",
            ],
        },
    ],
    "after": [{"name": "last", "run": "train", "with": ["model.path={policy}", "model.reference={train.model}"]}],
}


def write(folder: Path, loop: dict[str, Any]) -> Path:
    """A folder of recipes with this loop in it, named mine."""
    file = folder / "rounds" / "recipe" / "mine.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(loop, sort_keys=False), encoding="utf-8")
    return folder


def unfolded(folder: Path, *words: str, **changed: Any) -> list[Command]:
    """The commands of `LOOP`, with other parts."""
    return unfold(composed(folder, *words, **changed))


def composed(folder: Path, *words: str, **changed: Any) -> Loop:
    return compose(["recipe=mine", "dir=D", *words], write(folder, {**LOOP, **changed}))


def refused(folder: Path, *words: str, **changed: Any) -> str:
    """What is said of a loop that is refused, by the composition, the unfolding or the check."""
    with pytest.raises(UserError) as caught:
        checked(composed(folder, *words, **changed), folder)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{folder}/", "")


def checked(loop: Loop, config_dir: Path) -> None:
    check(loop, unfold(loop), config_dir)


def words_of(commands: list[Command]) -> dict[str, list[str]]:
    return {command.where: list(command.words) for command in commands}


def test_every_command_of_every_round_is_known_before_the_first_starts(tmp_path: Path) -> None:
    words = words_of(unfolded(tmp_path))
    assert list(words) == [
        "before/sft",
        "round-1/data",
        "round-1/train",
        "round-2/data",
        "round-2/train",
        "after-2/last",
    ]
    assert words["before/sft"] == ["loss=sft", "model.path=START"]
    assert words["round-1/data"] == ["policy=START", "reference=D/before/sft/model", "seed=421"]
    assert words["round-2/data"] == ["policy=D/round-1/train/model", "reference=D/before/sft/model", "seed=422"]
    assert words["round-2/train"] == [
        "model.path=D/round-1/train/model",
        "data.train=[{path: D/round-2/data/pairs.jsonl}]",
        "optim.lr=0.0001",
        "loss.beta=0.2",
        "train.seed=2",
    ]
    assert words["after-2/last"] == ["model.path=D/round-2/train/model", "model.reference=D/round-2/train/model"]


def test_what_a_step_reads_of_earlier_ones_is_known(tmp_path: Path) -> None:
    reads = {command.where: command.reads for command in unfolded(tmp_path)}
    assert reads["before/sft"] == ()
    assert reads["round-1/data"] == ("D/before/sft/model",)
    assert reads["round-2/train"] == ("D/round-1/train/model", "D/round-2/data/pairs.jsonl")


def test_the_command_line_sets_inputs_seed_and_rounds(tmp_path: Path) -> None:
    words = words_of(unfolded(tmp_path, "rounds=1", "seed=7", "inputs.more=[a=1, b.c=x:y]", "inputs.rate=3e-5"))
    assert words["round-1/data"][-1] == "seed=71"
    assert words["round-1/train"][2:] == ["optim.lr=3e-5", "a=1", "b.c=x:y"]
    assert "round-2/data" not in words


def test_an_empty_list_of_words_leaves_nothing(tmp_path: Path) -> None:
    assert words_of(unfolded(tmp_path, "inputs.more=[]"))["round-1/train"][-1] == "optim.lr=0.0001"


def test_braces_around_anything_else_are_left_as_they_are() -> None:
    scope = {"a": Value("A"), "b.c": Value("B")}
    kept = "model.lora={r: 4} data.eval={} pattern=x{3}y{2,4} {a b}"
    assert fill(kept, scope, set()).text == kept
    assert fill("data.train=[{path: {b.c}}]{a}", scope, set()).text == "data.train=[{path: B}]A"


def test_the_folder_is_named_after_what_decides_a_round(tmp_path: Path) -> None:
    config_dir = write(tmp_path, LOOP)
    folder = compose(["recipe=mine"], config_dir).settings.dir
    assert folder.startswith("rounds/mine-")
    assert compose(["recipe=mine", "rounds=9"], config_dir).settings.dir == folder
    assert compose(["recipe=mine", "seed=43"], config_dir).settings.dir != folder
    assert compose(["recipe=mine", "name=other"], config_dir).settings.dir == folder.replace("mine", "other")


def test_a_path_with_blanks_and_quotes_is_quoted_for_the_command() -> None:
    from prefopt.overrides import parse, plain

    for path in ("plain/path-1.x", "a b/it's", "x,y=[z]", "back\\slash", "ends in\\", "\\'", "a\\\\'b'"):
        assert plain(parse(assigned("dir", path)).value()) == path


def step(name: str, run: str, *words: Any) -> dict[str, Any]:
    return {"name": name, "run": run, "with": list(words)}


MINE = "rounds/recipe/mine.yaml"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"after": [step("x", "train", "model.path={inputs.polcy}")]},
            f"{MINE}: step x, word 'model.path={{inputs.polcy}}': {{inputs.polcy}}: the recipe has no such input\n"
            "  did you mean 'policy'?",
        ),
        (
            {"after": [step("x", "train", "model.path={polciy}")]},
            "step x, word 'model.path={polciy}': {polciy}: there is no such placeholder\n  did you mean 'policy'?",
        ),
        (
            {"steps": [step("one", "train", "model.path={train.model}"), *LOOP["steps"]]},
            "step one, word 'model.path={train.model}': {train.model}: step train comes later\n  a value of the round"
            " before is carried: carry: {NAME: {first: ..., then: '{train.model}'}}",
        ),
        (
            {"steps": [step("train", "train", "model.path={train.model}")]},
            "{train.model}: a step cannot read itself",
        ),
        ({"before": [step("sft", "train", "model.path={train.model}")]}, "{train.model}: step train comes later"),
        ({"before": [step("sft", "train", "model.path={policy}")]}, "{policy}: it has a value in rounds"),
        ({"before": [step("sft", "train", "train.seed={round}")]}, "{round}: it has a value in rounds"),
        (
            {"after": [step("x", "train", "data.train=[{path: {train.pairs}}]")]},
            "{train.pairs}: a step that runs train gives {train.dir} and {train.model}",
        ),
        (
            {"after": [step("x", "train", "model.path={data}")]},
            "{data}: a step that runs pairs gives {data.dir} and {data.pairs}",
        ),
        (
            {"after": [step("x", "train", "loss={inputs.more}")]},
            "{inputs.more}: it is a list of words, and stands for them only where it is a word of its own",
        ),
        (
            {"carry": {"policy": {"first": "{train.model}", "then": "{train.model}"}}},
            f"{MINE}: carry.policy.first, '{{train.model}}': {{train.model}}: step train comes later",
        ),
        ({"carry": {"policy": {"first": "x"}}}, "carry.policy.then is not set"),
        (
            {"carry": {"seed": {"first": "x", "then": "y"}}},
            "carry seed: the name is taken, by a placeholder of every loop",
        ),
        ({"after": [step("train", "train")]}, f"{MINE}: step train: the name is taken, by a step"),
        ({"after": [step("a/b", "train")]}, "step 'a/b': a name is letters, digits and _"),
        (
            {"after": [step("x", "trian")]},
            f"{MINE}: step x of after: there is no command 'trian' to run\n  did you mean 'train'?",
        ),
        ({"after": [{"name": "x", "run": "train"}]}, "step x of after: with is not set"),
        ({"after": [{**step("x", "train"), "wiht": 1}]}, "there is no key 'wiht'\n  did you mean 'with'?"),
        ({"after": [step("x", "train", {"loss.beta": 1})]}, "with: expected a list of words, got {'loss.beta': 1}"),
        ({"after": ["x"]}, f"{MINE}: after.0: expected {{name, run, with}}, got 'x'"),
        ({"steps": []}, "steps is empty"),
        ({"rounds": 0}, f"rounds must be 1 or more, not 0 ({MINE})"),
        ({"rounds": "two"}, "rounds: expected a whole number, got text 'two'"),
        ({"stesp": []}, f"{MINE}: stesp: there is no such key\n  did you mean 'steps'?"),
        ({"inputs": {**LOOP["inputs"], "rows": None}}, "inputs.rows must be given\n  inputs.rows=VALUE"),
        ({"inputs": {**LOOP["inputs"], "rows": {"a": 1}}}, "inputs.rows: expected text, a number or a list of words"),
        ({"inputs": {**LOOP["inputs"], "rows": "{train.model}"}}, "inputs.rows: {train.model} is not filled in here"),
        ({"inputs": {**LOOP["inputs"], "rows": "${oc.env:HOME}"}}, "a run does not read the environment"),
    ],
)
def test_a_recipe_that_cannot_be_is_one_sentence(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in refused(tmp_path, **changed)


@pytest.mark.parametrize(
    ("run", "word", "said"),
    [
        ("train", "dir=elsewhere", "dir is not a step's to set: the loop gives each step a folder of its own"),
        ("train", "++dir=elsewhere", "dir is not a step's to set"),
        ("pairs", "out=elsewhere", "out is not a step's to set"),
        ("pairs", "shard=0/2", "shard is not a step's to set: a part of the prompts would be taken for all of them"),
        ("train", "--dry-run", "a step takes group=NAME and key=value, no options"),
        ("train", "hydra/launcher=slurm", "a loop runs its steps here, and waits for each"),
        ("pairs", "beta", "beta: expected key=value"),
        ("pairs", "a=[b", "a=[b: cannot be read"),
        ("train", "loss.bta=1", "step x: loss.bta: orpo has no such setting\n  known: lam, nll_over"),
        ("train", "loss=dpo,orpo", "several values for one run"),
        ("train", "train.batch_size=0", "step x: train.batch_size must be 1 or more, not 0"),
        ("train", "model.path=./nowhere", "step x: model.path: there is no folder ./nowhere"),
    ],
)
def test_a_word_that_cannot_be_is_refused_with_recipe_and_step(run: str, word: str, said: str, tmp_path: Path) -> None:
    there = ["model.path=demo://manners/base", "data=manners"] if run == "train" else []
    found = refused(tmp_path, before=[step("x", run, *there, word)], steps=[step("y", "pairs")], carry={}, after=[])
    assert found.startswith(f"{MINE}: step x")
    assert said in found


def test_a_model_that_a_step_will_train_counts_as_there(tmp_path: Path) -> None:
    with_data = ["data=manners", "model.path={a.model}"]
    steps = [step("a", "train", "data=manners", "model.path=demo://manners/base"), step("b", "train", *with_data)]
    loop = composed(tmp_path, steps=steps, carry={}, before=[], after=[])
    checked(loop, tmp_path)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("inputs.polcy=x", "inputs.polcy: rounds/recipe/mine.yaml has no such input\n  did you mean 'policy'?"),
        ("inputs.rows=x", "inputs.rows has no effect: no step of rounds/recipe/mine.yaml uses it"),
        ("steps=[]", "steps: is said by the recipe, not on the command line"),
        ("carry.policy.first=x", "carry.policy.first: is said by the recipe"),
        ("round=3", "round: there is no such key\n  did you mean 'rounds'?"),
        ("rounds", "rounds: expected key=value"),
        ("inputs.policy=[a", "inputs.policy=[a: cannot be read"),
        ("inputs.policy=2024-01-01", "inputs.policy=2024-01-01: expected text"),
        ("seed=-1", "seed must be 0 or more, not -1"),
        ("name=a/b", "name must begin with a letter or digit and hold no /"),
    ],
)
def test_a_word_of_the_command_line_that_cannot_be_is_one_sentence(word: str, said: str, tmp_path: Path) -> None:
    assert said in refused(tmp_path, word)


def test_a_secret_among_the_inputs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "very-secret-indeed")
    said = refused(tmp_path, "inputs.policy=very-secret-indeed")
    assert "holds what the environment variable JUDGE_API_KEY holds" in said
    assert "very-secret-indeed" not in said


def test_no_recipe_and_an_unknown_one_name_the_loops_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rounds"]) == 2
    assert "recipe=NAME is missing\n  known: back_translation, iterative_dpo" in capsys.readouterr().err
    assert main(["rounds", "recipe=iterativ_dpo"]) == 2
    assert "recipe=iterativ_dpo: there is no such loop\n  did you mean 'iterative_dpo'?" in capsys.readouterr().err


def test_a_dry_run_prints_every_command_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["rounds", "--dry-run", "recipe=iterative_dpo", "rounds=2"]) == 0
    out = capsys.readouterr().out
    commands = [line for line in out.splitlines() if line.startswith("prefopt ")]
    assert [line.split()[1] for line in commands] == ["pairs", "train", "pairs", "train"]
    assert "policy=demo://manners/base" in commands[0]
    assert "/round-1/train/model" in commands[2]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_loop_is_refused_with_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefopt.rounds.record import open_record

    monkeypatch.chdir(tmp_path)
    loop = compose(["recipe=iterative_dpo", "dir=here"])
    Path("here").mkdir()
    open_record(loop).save()
    before = Path("here/rounds.json").read_text()
    assert main(["rounds", "recipe=iterative_dpo", "dir=here", "inputs.policy=other/model", "seed=1"]) == 2
    err = capsys.readouterr().err
    assert "here holds another loop; it is left as it is. What differs (there -> here):" in err
    assert "  inputs.policy: demo://manners/base -> other/model\n" in err
    assert "  seed: 42 -> 1\n" in err
    assert Path("here/rounds.json").read_text() == before
    assert sorted(p.name for p in Path("here").iterdir()) == ["rounds.json"]


def test_a_folder_that_is_no_loop_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    Path("here/thesis.tex").touch()
    assert main(["rounds", "recipe=iterative_dpo", "dir=here"]) == 2
    assert "here is not a loop: it holds thesis.tex and no rounds.json" in capsys.readouterr().err
