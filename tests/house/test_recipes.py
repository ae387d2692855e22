"""Every YAML composes, says what each key means, and has the keys and defaults of its dataclass."""

from __future__ import annotations

import re
from dataclasses import MISSING, asdict, fields
from pathlib import Path

import pytest
import yaml

from prefopt.config import compose
from prefopt.engine_settings import FsdpSettings
from prefopt.errors import UserError
from prefopt.evaluate.registry import measure_class, measure_names
from prefopt.evaluate.settings import EvalSettings
from prefopt.losses import default_settings, names
from prefopt.pairs.registry import KINDS, stage_class
from prefopt.pairs.registry import names as stages
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs_config import compose_pairs
from prefopt.recipe_files import EVAL_TREE, GROUPS, PAIRS_TREE, choices, packaged, search_path, title
from prefopt.rounds.check import check as check_loop
from prefopt.rounds.compose import compose as compose_loop
from prefopt.rounds.settings import RoundsSettings
from prefopt.rounds.unfold import unfold
from prefopt.settings import DataSettings, ModelSettings, OptimSettings, RunSettings, TrackerSettings
from prefopt.sweeps.params import stated_by_recipe

FILES = sorted(packaged().rglob("*.yaml"))
LOOPS = [file for file in FILES if file.is_relative_to(packaged() / "rounds")]
OF_PAIRS = [file for file in FILES if file.is_relative_to(packaged() / "pairs")]
STAGES = [(kind, name) for kind in KINDS for name in stages(kind)]
CHOICES = [(group, name) for group in GROUPS for name in choices(group, search_path())]

SECTIONS = {f.name for f in fields(RunSettings)} | set(KINDS)
"""Keys that need no comment in a recipe: the group's own file has one."""

OF_A_LOOP = {f.name for f in fields(RoundsSettings)}
"""The same of a loop: rounds.yaml has the comments, and each step and input one of its own."""

OF_A_SWEEP = ("hydra", "sweeper", "params")
"""Above the keys that a recipe is swept over, each of which has a comment."""

MUST_BE_GIVEN = {
    "python": ["function=a:b"],
    "server": ["url=http://127.0.0.1:1", "model=m"],
    "judge": ["url=http://127.0.0.1:1", "model=m"],
    "regex": ["pattern=a"],
}
"""Of stages of `prefopt pairs`: settings without a default."""

BASES = [
    ("model/local.yaml", ModelSettings()),
    ("data/local.yaml", DataSettings()),
    ("optim/adamw.yaml", OptimSettings()),
    ("fsdp/none.yaml", FsdpSettings()),
    ("tracker/none.yaml", TrackerSettings()),
]
"""The file of each group that lists every key, and the dataclass whose defaults it must state."""


def name_of(file: Path) -> str:
    return file.relative_to(packaged()).as_posix()


def one_of_each(group: str, name: str) -> list[str]:
    """Of a recipe that is a sweep: the first value of each key that it is swept over."""
    stated = stated_by_recipe([f"{group}={name}"], None) if group == "recipe" else {}
    return [f"{key}={str(values).split(',')[0]}" for key, values in stated.get("params", {}).items()]


@pytest.mark.parametrize(("group", "name"), CHOICES, ids=["=".join(choice) for choice in CHOICES])
def test_every_choice_composes(group: str, name: str) -> None:
    run = compose([f"{group}={name}", *one_of_each(group, name)])
    if group == "recipe":
        assert run.name == name.split("/")[-1]
        assert run.model.path
        assert run.data.train


@pytest.mark.parametrize(("file", "defaults"), BASES, ids=[file for file, _ in BASES])
def test_group_file_states_the_schemas_keys_and_defaults(file: str, defaults: object) -> None:
    assert yaml.safe_load((packaged() / file).read_text(encoding="utf-8")) == asdict(defaults)  # type: ignore[call-overload]


def test_train_yaml_states_the_schemas_keys_and_defaults() -> None:
    stated = yaml.safe_load((packaged() / "train.yaml").read_text(encoding="utf-8"))
    expected = {key: value for key, value in asdict(RunSettings()).items() if key not in GROUPS}
    del stated["defaults"]
    assert stated == expected


def test_rounds_yaml_states_the_schemas_keys_and_defaults() -> None:
    assert yaml.safe_load((packaged() / "rounds/rounds.yaml").read_text(encoding="utf-8")) == asdict(RoundsSettings())


@pytest.mark.parametrize("file", [f for f in LOOPS if f.parent.name == "recipe"], ids=name_of)
def test_a_loop_names_its_source_and_its_commands_pass_the_checks(file: Path) -> None:
    assert re.search(r"^# source: ", file.read_text(encoding="utf-8"), re.MULTILINE)
    loop = compose_loop([f"recipe={file.stem}"])
    commands = unfold(loop)
    check_loop(loop, commands, None)
    assert len(commands) == len(loop.before) + loop.settings.rounds * len(loop.steps) + len(loop.after)


def test_pairs_yaml_states_the_schemas_keys_and_defaults() -> None:
    stated = yaml.safe_load((packaged() / "pairs/pairs.yaml").read_text(encoding="utf-8"))
    expected = {key: value for key, value in asdict(PairsSettings()).items() if key not in KINDS}
    del stated["defaults"]
    assert stated == expected


@pytest.mark.parametrize(("kind", "name"), STAGES, ids=["=".join(stage) for stage in STAGES])
def test_stage_file_states_the_stages_keys_and_defaults(kind: str, name: str) -> None:
    stated = yaml.safe_load((packaged() / "pairs" / kind / f"{name}.yaml").read_text(encoding="utf-8"))
    defaults = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in
                fields(stage_class(kind, name))}  # fmt: skip
    assert stated == {"name": name, **defaults}


def test_eval_yaml_states_the_schemas_keys_and_defaults() -> None:
    stated = yaml.safe_load((packaged() / "eval/eval.yaml").read_text(encoding="utf-8"))
    expected = {key: value for key, value in asdict(EvalSettings()).items() if key != "measure"}
    del stated["defaults"]
    assert stated == expected


@pytest.mark.parametrize("name", measure_names())
def test_measure_file_states_the_measures_keys_and_defaults(name: str) -> None:
    stated = yaml.safe_load((packaged() / "eval/measure" / f"{name}.yaml").read_text(encoding="utf-8"))
    defaults = {
        f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(measure_class(name))
    }
    assert stated == {"name": name, **defaults}


def test_every_measure_has_a_file_and_every_file_a_measure() -> None:
    assert list(choices("measure", search_path(None, EVAL_TREE))) == measure_names()


@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_has_a_file_and_every_file_a_stage(kind: str) -> None:
    assert list(choices(kind, search_path(None, PAIRS_TREE))) == stages(kind)


@pytest.mark.parametrize(("kind", "name"), STAGES, ids=["=".join(stage) for stage in STAGES])
def test_every_stage_composes(kind: str, name: str) -> None:
    needed = {"generate": ["score=length"], "score": ["generate=given"], "select": ["generate=given", "score=length"]}
    words = ["prompts=p.jsonl", *needed[kind], f"{kind}={name}"]
    words += [f"{kind}.{setting}" for setting in MUST_BE_GIVEN.get(name, [])]
    while (asked := refused(words)).endswith("uses it"):
        words.append(f"{asked.partition(':')[0]}=m")
    assert asked == ""
    assert getattr(compose_pairs(words).settings, kind)["name"] == name


def refused(words: list[str]) -> str:
    """What a command line is refused with; empty where it is not."""
    try:
        compose_pairs(words)
    except UserError as error:
        return error.message
    return ""


@pytest.mark.parametrize("file", [f for f in OF_PAIRS if f.parent.name == "recipe"], ids=name_of)
def test_a_recipe_of_pairs_names_its_source_and_composes(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# @package _global_\n")
    assert re.search(r"^# source: ", text, re.MULTILINE)
    words = [f"recipe={file.stem}", "prompts=p.jsonl"]
    words += [f"score.{word}" for word in MUST_BE_GIVEN["judge"] if "score: judge" in text]
    while (asked := refused(words)).endswith("uses it"):
        words.append(f"{asked.partition(':')[0]}=m")
    assert asked == ""
    assert compose_pairs(words).settings.name == file.stem


@pytest.mark.parametrize("method", names())
def test_loss_file_states_the_methods_keys_and_defaults(method: str) -> None:
    stated = yaml.safe_load((packaged() / "loss" / f"{method}.yaml").read_text(encoding="utf-8"))
    assert stated == {"name": method, **default_settings(method)}


def test_every_method_has_a_file_and_every_file_a_method() -> None:
    assert list(choices("loss", search_path())) == names()


@pytest.mark.parametrize("name", choices("tracker", search_path()))
def test_tracker_file_chooses_the_tracker_it_is_named_after(name: str) -> None:
    assert compose([f"tracker={name}"]).tracker == TrackerSettings(name=name)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_key_has_a_comment(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    in_defaults = False
    for number, line in enumerate(lines):
        key = re.match(r"( *)(?:- )?([\w.]+):", line)
        if not line.startswith(" "):
            in_defaults = line.startswith("defaults:")
        if key is None or in_defaults or line.lstrip().startswith("#"):
            continue
        sections = OF_A_LOOP if file in LOOPS else SECTIONS
        is_section = line.rstrip().endswith(":") and not key.group(1) and key.group(2) in sections
        is_section |= key.group(2) in OF_A_SWEEP and file.parent.name == "sweep"
        is_section |= file in LOOPS and key.group(2) in ("run", "with")  # of a step, which has a comment
        above = lines[number - 1].lstrip() if number else ""
        assert is_section or above.startswith("#") or "  #" in line, f"{name_of(file)}:{number + 1}: {line.strip()}"


@pytest.mark.parametrize("file", [f for f in FILES if name_of(f).startswith("recipe/")], ids=name_of)
def test_recipe_is_global_and_names_its_source(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# @package _global_\n")
    for label in ("source", "departs", "hardware", *(() if file.parent.name == "sweep" else ("expected",))):
        assert len(re.findall(rf"^# {label}: ", text, re.MULTILINE)) == 1, label


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_file_has_a_title_for_help(file: Path) -> None:
    assert title(file)


def test_recipes_that_repeat_the_orpo_authors_runs_train_on_the_prompt() -> None:
    assert compose(["recipe=orpo_mistral"]).loss["nll_over"] == "sequence"
