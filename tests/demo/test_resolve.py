"""`demo://` paths become real ones, whole or not at all."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from prefopt import demo
from prefopt.demo import cache
from prefopt.errors import RunError, UserError
from prefopt.settings import DataSettings, ModelSettings, RunSettings, SourceSettings


def quickstart() -> RunSettings:
    return RunSettings(
        model=ModelSettings(path="demo://manners/base", reference="demo://manners/base"),
        data=DataSettings(
            train=[SourceSettings("demo://manners/train.jsonl", weight=0.5), SourceSettings("mine.jsonl")],
            eval={"heldout": SourceSettings("demo://manners/heldout.jsonl")},
        ),
    )


def files_in(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_resolving_without_weights_makes_data_tokenizer_and_configuration_only(tmp_path: Path) -> None:
    run = demo.resolve(quickstart(), tmp_path, weights=False)
    assert len(Path(run.data.train[0].path).read_text().splitlines()) == 1500
    row = json.loads(Path(run.data.eval["heldout"].path).read_text().splitlines()[0])
    assert set(row) == {"prompt", "chosen", "rejected"}
    assert run.model.path == run.model.reference
    names = {Path(file).name for file in files_in(tmp_path)}
    assert names == {
        "train.jsonl",
        "heldout.jsonl",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_resolving_changes_demo_paths_only_and_leaves_its_argument_alone(tmp_path: Path) -> None:
    run = quickstart()
    before = copy.deepcopy(run)
    resolved = demo.resolve(run, tmp_path, weights=False)
    assert run == before
    assert resolved.data.train[1] == SourceSettings("mine.jsonl")
    assert resolved.data.train[0].weight == 0.5
    assert resolved.model.tokenizer is None
    assert "demo://" not in str(resolved)


def test_resolving_twice_changes_nothing(tmp_path: Path) -> None:
    once = demo.resolve(quickstart(), tmp_path, weights=False)
    times = {file: (tmp_path / file).stat().st_mtime_ns for file in files_in(tmp_path)}
    assert demo.resolve(once, tmp_path, weights=False) == once
    assert demo.resolve(quickstart(), tmp_path, weights=False) == once
    assert {file: (tmp_path / file).stat().st_mtime_ns for file in files_in(tmp_path)} == times


def test_a_run_is_a_demo_before_and_after_resolving(tmp_path: Path) -> None:
    assert demo.is_demo(quickstart())
    assert demo.is_demo(demo.resolve(quickstart(), tmp_path, weights=False))
    own_rows = quickstart()
    own_rows.data.eval = {"heldout": SourceSettings("demo/rows.jsonl")}
    assert not demo.is_demo(own_rows)
    assert not demo.is_demo(RunSettings())


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("demo://maners/base", "model.path: there is no demo 'maners'", "did you mean 'manners'?"),
        ("demo://manners/bse", "model.path: the demo 'manners' has no file 'bse'", "did you mean 'base'?"),
        ("demo://", "model.path: there is no demo ''", "known: manners"),
    ],
)
def test_an_unknown_demo_is_refused_with_its_key_and_the_nearest_name(
    tmp_path: Path, path: str, message: str, hint: str
) -> None:
    with pytest.raises(UserError) as refused:
        demo.resolve(RunSettings(model=ModelSettings(path=path)), tmp_path)
    assert refused.value.message.startswith(message)
    assert refused.value.hint == hint
    assert refused.value.exit_code == 2


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(RunError, match=r"data\.train\.0\.path: demo://manners/train\.jsonl cannot be made"):
        demo.resolve(quickstart(), tmp_path / "cache", weights=False)


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").write_text("half")
        raise RunError("the disk is full")

    with pytest.raises(RunError):
        cache.make_once(tmp_path / "base", fill)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_folder", [True, False])
def test_of_two_that_start_at_once_one_wins_and_both_succeed(tmp_path: Path, is_folder: bool) -> None:
    both_started = threading.Barrier(2, timeout=20)
    target = tmp_path / "base"
    found: list[Path] = []

    def fill(made: Path) -> None:
        both_started.wait()
        if is_folder:
            made.mkdir()
        (made / "weights" if is_folder else made).write_text("whole")

    threads = [threading.Thread(target=lambda: found.append(cache.make_once(target, fill))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [target, target]
    assert list(tmp_path.iterdir()) == [target]
    assert (target / "weights" if is_folder else target).read_text() == "whole"


def test_importing_the_demo_imports_nothing_heavy() -> None:
    code = (
        "import sys, prefopt.demo; "
        "print(sorted({'torch', 'transformers', 'tokenizers', 'rich', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


@pytest.mark.slow
def test_resolving_pretrains_the_base_once_and_without_torch_in_this_process(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from prefopt import demo; from prefopt.settings import *; "
        "run = RunSettings(model=ModelSettings(path='demo://manners/base')); "
        "print(demo.resolve(run, pathlib.Path(sys.argv[1])).model.path, 'torch' in sys.modules)"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    folder, imported = first.stdout.split()
    assert imported == "False"
    assert (Path(folder) / "model.safetensors").is_file()
    assert "step 300/300" in first.stderr
    assert second.stdout == first.stdout
    assert second.stderr == ""
