"""Texts of somebody else's cannot run code or lead elsewhere: YAML, interpolations, chat templates, names and paths.

What would run leaves a marker; models and data sets are in test_untrusted_models.py.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from untrusted_bed import refusal, words_for

from prefopt.checks import check
from prefopt.config import compose
from prefopt.data import template_limit
from prefopt.data.dataset import DropError, prepare
from prefopt.data.load import open_source
from prefopt.data.tokenizer import load_tokenizer
from prefopt.errors import UserError
from prefopt.settings import DataSettings, SourceSettings, load
from prefopt.sweeps.groups import split

# YAML and interpolations

TAGS = [
    '!!python/object/apply:os.system ["touch {marker}"]',
    "!!python/object/new:subprocess.Popen [[touch, {marker}]]",
    "!!python/name:os.system",
    "!own something",
]


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("group", ["recipe", "deepspeed", "model", "loss", "hydra/launcher"])
def test_tags_in_recipe_files(group: str, tag: str, marker: Path, tmp_path: Path) -> None:
    file = tmp_path / group / "evil.yaml"
    file.parent.mkdir(parents=True)
    key = {"recipe": "name", "deepspeed": "config", "model": "path", "loss": "name"}.get(group, "jobs")
    file.write_text(f"# @package _global_\n{key}: {tag.format(marker=marker)}\n")
    with pytest.raises(UserError) as error:
        compose(split([f"{group}=evil"], tmp_path)[0], tmp_path)
    assert "evil.yaml" in error.value.message
    assert error.value.exit_code == 2
    assert not marker.exists()


@pytest.mark.parametrize("tag", TAGS)
def test_tags_in_run_yaml(tag: str, marker: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"name: {tag.format(marker=marker)}\n")
    with pytest.raises(UserError, match=r"run\.yaml: is not YAML"):
        load(tmp_path / "run.yaml")
    assert not marker.exists()


@pytest.mark.parametrize(
    "text", ["${oc.env:HOME}", "${oc.env:NOWHERE,x}", "${oc.${optim.name}:HOME}", "a${oc.env:HOME}b"]
)
def test_a_run_does_not_read_the_environment(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text(f"# @package _global_\nmodel:\n  path: '{text}'\n")
    words = [["recipe=mine", "optim.name=env"], ["optim.name=env", f"model.path='{text}'"]]
    for given in words:
        with pytest.raises(UserError, match="a run does not read the environment") as error:
            compose(given, tmp_path)
        assert os.environ["HOME"] not in str(error.value)


def test_other_interpolations_are_left_as_they_are() -> None:
    from omegaconf import OmegaConf

    assert compose(["train.seed=5", "train.max_steps=${oc.decode:'7'}"]).train.max_steps == 7
    assert compose(["train.seed=5", "train.max_steps=${oc.select:train.seed}"]).train.max_steps == 5
    with pytest.raises(UserError, match="Unsupported interpolation type"):
        compose(["model.path=${hydra:runtime.cwd}"])
    assert OmegaConf.create({"a": "${oc.env:HOME}"}).a == os.environ["HOME"]  # of this process nothing has changed


# Chat templates

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ lipsum.__globals__['os'].system('touch MARKER') }}",
    "{{ cycler.__init__.__globals__.os.system('touch MARKER') }}",
    "{% set a = namespace(__class__=1) %}{{ a }}",
    "{{ messages.append(1) }}",
]
"""Each is stopped by the sandbox with an error."""

EMPTY = ["{{ messages.__class__ }}", "{{ raise_exception.__globals__ }}", "{{ '{0.__class__}'.format(messages) }}"]
"""These too ask for what they may not have, and are given nothing."""


@pytest.mark.parametrize("where", ["setting", "file", "tokenizer", "tokenizer_config"])
@pytest.mark.parametrize("escape", ESCAPES)
def test_templates_that_want_out(escape: str, where: str, model: Path, marker: Path, tmp_path: Path) -> None:
    text = escape.replace("MARKER", str(marker))
    template = {"setting": text, "file": str(tmp_path / "a.jinja")}.get(where)
    (tmp_path / "a.jinja").write_text(text)
    if where == "tokenizer":
        (model / "chat_template.jinja").write_text(text)
    if where == "tokenizer_config":
        (model / "chat_template.jinja").unlink(missing_ok=True)
        config = json.loads((model / "tokenizer_config.json").read_text())
        (model / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": text}))
    with pytest.raises(
        UserError, match="the chat template reaches for what no template needs, and was stopped"
    ) as error:
        load_tokenizer(str(model), None, template)
    assert "\n" not in error.value.message
    assert not marker.exists()


@pytest.mark.parametrize("escape", EMPTY)
def test_templates_that_are_given_nothing(escape: str, model: Path) -> None:
    tokenizer = load_tokenizer(str(model), None, f"<{escape}>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "<>"


def chat_rows(folder: Path) -> DataSettings:
    turns = [{"role": "user", "content": "hi"}]
    row = {side: [*turns, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    (folder / "chat.jsonl").write_text((json.dumps(row) + "\n") * 3)
    return DataSettings(train=[SourceSettings(str(folder / "chat.jsonl"))], max_drop_fraction=1.0)


SECOND_TURN = "{% if messages | length > 1 %}HARM{% endif %}{{ messages[0].content }}"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("{{ ''.__class__.__mro__ }}", "was stopped"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "not come to an end"),
        ("{% for a in range(99999) %}{{ 'x' * 100 }}{% endfor %}", "characters of a dialogue of"),
    ],
)
@pytest.mark.parametrize("late", [False, True], ids=["at once", "on some rows"])
def test_templates_that_do_harm(
    harm: str, said: str, late: bool, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_limit, "SECONDS", 0.3)
    data = chat_rows(tmp_path)
    data.chat_template = SECOND_TURN.replace("HARM", harm) if late else harm
    with pytest.raises(UserError, match=said) as error:
        prepare(data, str(model), frozenset({"pairs"}), tmp_path / "cache")
    assert ("chat.jsonl:1" in error.value.message) == late


@pytest.mark.parametrize(
    "harm",
    [
        "{{ 'x' * 10 ** 16 }}",
        "{{ 1 // 0 }}",
        "{{ range(10 ** 9) }}",
        "{{ messages[0].content.nothing.more }}",
        "{% include 'a' %}",
    ],
)
def test_templates_that_fail_leave_their_rows_out(harm: str, model: Path, tmp_path: Path) -> None:
    data = chat_rows(tmp_path)
    data.chat_template = SECOND_TURN.replace("HARM", harm)
    with pytest.raises(DropError, match=r"chat template refuses the row \(3\)"):
        prepare(data, str(model), frozenset({"pairs"}), tmp_path / "cache")


# Paths


@pytest.mark.parametrize("group", ["recipe", "loss", "model", "data", "deepspeed", "tracker"])
@pytest.mark.parametrize("name", ["../x", "../../x", "/etc/x", "a/../../x"])
def test_choices_stay_inside_the_recipes(group: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "x.yaml").write_text("# @package _global_\nname: taken\n")
    assert "there is no such" in refusal([f"{group}={name}"], tmp_path / "inner")


@pytest.mark.parametrize("line", ["- ../x", "- /loss: ../../x", "- override /loss: ../../x"])
def test_defaults_lists_stay_inside_the_recipes(line: str, tmp_path: Path) -> None:
    (tmp_path / "inner" / "recipe").mkdir(parents=True)
    (tmp_path / "x.yaml").write_text("name: taken\n")
    (tmp_path / "inner" / "x.yaml").write_text("name: taken\n")
    (tmp_path / "inner" / "recipe" / "mine.yaml").write_text(f"# @package _global_\ndefaults:\n  {line}\nname: a\n")
    said = refusal(["recipe=mine"], tmp_path / "inner")
    assert "x" in said


@pytest.mark.parametrize(
    "name", ["../../x", "..", ".", "", "a/b", "a\\b", "-rf", "a\nb", "#!x", "a\u2028b", "a" * 101, ".hidden"]
)
@pytest.mark.parametrize("key", ["name", "tracker.project"])
def test_names_lead_nowhere(key: str, name: str, material: tuple[Path, Path], tmp_path: Path) -> None:
    run = compose(words_for(material, tmp_path))
    place = run if key == "name" else run.tracker
    setattr(place, key.rpartition(".")[2], name)
    with pytest.raises(UserError, match=f"^{key} must begin with a letter or digit"):
        check(run)


@pytest.mark.parametrize(
    "path", ["demo://../x", "demo://../../etc/passwd", "demo://manners/../../x", "demo://", "demo:///"]
)
def test_demos_lead_nowhere(path: str, tmp_path: Path) -> None:
    from prefopt import demo

    run = compose(["recipe=quickstart", f"data.train=[{{path: '{path}'}}]"])
    with pytest.raises(UserError, match="demo"):
        demo.resolve(run, tmp_path / "cache", weights=False)
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").rglob("x"))


@pytest.mark.parametrize("path", ["~nobody-by-that-name/x", "a" * 300, "b" * 300 + "/x"])
def test_paths_that_cannot_be_looked_up(path: str, material: tuple[Path, Path], tmp_path: Path) -> None:
    for key in ("model.path", "model.tokenizer"):
        assert f"{key}: " in refusal(words_for(material, tmp_path, f"{key}='{path}'"))
    with pytest.raises(UserError, match="cannot be looked up"):
        open_source(SourceSettings(path))
