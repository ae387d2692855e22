"""The pages of docs/ say what is so: settings compose, messages exist, rows are read, the reference is up to date."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from docs_bed import DOCS, commands_of, files_of, text_of
from reference_bed import FOLDER, PAGES, keys_of, undocumented
from tiny import ROOT

from prefopt.config import compose
from prefopt.data.formats import FORMATS, recognise
from prefopt.data.rows import Row
from prefopt.losses import names
from prefopt.recipe_files import packaged
from prefopt.sweeps.groups import split
from prefopt.sweeps.plan import Combination, expand

HOWTO = sorted(file.relative_to(DOCS).as_posix() for file in (DOCS / "howto").glob("*.md"))
OURS = ["index.md", "tutorial.md", "differences.md", "troubleshooting.md", *HOWTO]
DATA_PAGE = text_of("howto/data.md").split("### `format:`\n")[1].split("\n## ")[0]
ROWS = {
    name: [json.loads(line) for line in block.strip().split("\n")]
    for name, block in re.findall(r"^`(\w+)` - .*?\n\n```json\n(.*?)```", DATA_PAGE, re.S | re.M)
}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_reference_page_is_what_its_script_makes(page: str) -> None:
    assert (FOLDER / page).read_text(encoding="utf-8") == PAGES[page](), "python scripts/docs_reference.py"


def test_every_method_and_every_key_has_a_place_in_the_reference() -> None:
    methods, settings = text_of("reference/methods.md"), text_of("reference/settings.md")
    assert re.findall(r"^## `(\w+)`$", methods, re.M) == names()
    for file in packaged().glob("loss/*.yaml"):
        assert all(f"| `loss.{key.name}` |" in methods for key in keys_of(file) if key.name != "name")
    for group in ("model/local", "data/local", "optim/adamw"):
        stated = yaml.safe_load((packaged() / f"{group}.yaml").read_text(encoding="utf-8"))
        assert all(f"| `{group.split('/')[0]}.{key}` |" in settings for key in stated)


def test_the_reference_gives_every_key_its_comment() -> None:
    bare = [key for key in keys_of(packaged() / "train.yaml") if not key.comment and key.value]
    assert bare == []


def test_names_of_metrics_are_told_from_others() -> None:
    known = {"loss", "loss/odds_ratio", "eval/heldout/rewards/accuracy", "eval/heldout/loss/dpo", "kl", "samples/drift"}
    assert undocumented({*known, "eval/heldout/lr", "rewards/accuracies", "eval/loss"}) == {
        "eval/heldout/lr",
        "rewards/accuracies",
        "eval/loss",
    }


def test_every_format_has_rows_on_the_page_of_data_and_no_other() -> None:
    assert sorted(ROWS) == sorted(FORMATS)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_each_row_on_the_page_of_data_is_read_as_the_format_it_stands_under(name: str) -> None:
    for value in ROWS[name]:
        found = recognise([Row("page:1", 1, value)], "auto", "page")
        assert found.format.name == name
        found.format.read(value, found.columns)


def spans_of_trl() -> list[str]:
    """What the last column of the tables with TRL's number says to set."""
    spans = []
    for table in re.findall(r"\| TRL's number \|\n\|[-|]+\n((?:\|.*\n)+)", text_of("differences.md")):
        for row in table.splitlines():
            last = row.rstrip(" |").split(" | ")[-1]
            spans += [span for span in re.findall(r"`([^`]+)`", last) if "=" in span]
    return spans


def test_what_gives_trls_number_composes() -> None:
    spans = spans_of_trl()
    assert len(spans) > 25
    for span in spans:
        words = [word for word in shlex.split(span) if word != "="]
        method = [] if any(word.startswith("loss=") for word in words) else ["loss=dpo"]
        compose([*method, *words])


def test_the_trl_defaults_that_differ_are_differences() -> None:
    run = compose(["loss=dpo"])
    assert (run.optim.schedule, run.optim.warmup_ratio) == ("cosine", 0.1)
    assert (run.train.epochs, run.train.batch_size) == (1, 128)
    assert (run.data.max_length, run.data.too_long, run.train.autocast, run.optim.lr) == (2048, "drop", "none", 1e-6)
    assert (run.optim.weight_decay, run.optim.max_grad_norm, run.train.seed) == (0.0, 1.0, 42)


@cache
def constants() -> str:
    """Every string of the package, one a line."""
    found = []
    for file in sorted((ROOT / "prefopt").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found += [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return "\n".join(found)


def test_messages_that_troubleshooting_quotes_are_in_the_code() -> None:
    plain = re.sub(r"```.*?```|`[^`]*`", "", text_of("troubleshooting.md"), flags=re.S)
    quoted = [" ".join(said.split("\n")) for said in re.findall(r'"([^"]+)"', plain)]
    assert len(quoted) > 25
    assert [said for said in quoted if said not in constants()] == []


def test_there_are_forty_troubles_and_their_tests_exist() -> None:
    page = text_of("troubleshooting.md")
    assert [int(n) for n in re.findall(r"^\*\*(\d+)\. ", page, re.M)] == list(range(1, 41))
    assert all((ROOT / path).exists() for path in re.findall(r"`(tests/[\w/.]+)`", page))


@pytest.mark.parametrize("page", OURS)
def test_links_and_files_of_a_page_exist(page: str) -> None:
    here = (DOCS / page).parent
    for target in re.findall(r"\]\(([^)#]+)", text_of(page)):
        assert (here / target).is_file(), target
    for path in re.findall(r"`((?:tests|scripts|prefopt|recipes|docs)/[\w/.]+)`", text_of(page)):
        assert (ROOT / path).exists() or path in files_of(page), path


@pytest.mark.parametrize("page", ["tutorial.md", *HOWTO])
def test_the_training_commands_of_a_page_compose(page: str) -> None:
    for words in commands_of(page):
        own = ("recipe=sums", "recipe=ours", "loss=square", "--repeat")
        if words[:2] != ["prefopt", "train"] or any(word in own for word in words):
            continue
        plain = [word for word in words[2:] if not word.startswith("-")]
        assert sum(word in ("-m", "--dry-run", "--show-config") for word in words) <= 1
        ours, _ = split(plain, None)
        for combination in expand(ours) if "-m" in words and "interval" not in " ".join(words) else ():
            assert isinstance(combination, Combination)
        if "-m" not in words:
            compose(ours)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    if find_spec("material") is None:
        pytest.skip("needs mkdocs-material, which is not installed here: make install, or the extra docs")
    config = ROOT / "docs" / "site" / "mkdocs.yml"
    words = ["build", "--strict", "--config-file", str(config), "--site-dir", str(tmp_path / "site")]
    known = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    ours = [sys.executable, "-m", "mkdocs", *words]
    done = subprocess.run(ours, env=known, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert (tmp_path / "site" / "reference" / "methods.html").is_file()
