"""A run that goes on with something changed: refused with the difference, left as it is, and accepted when named."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tiny import ROOT, TEMPLATE, kill_at_step, last_step, make_model, make_pairs, metrics, overrides, prefopt

NUM_STEPS = 16


class Bed:
    """A run on files that may be changed, killed after some steps. words: of the command. root: whose code it runs."""

    def __init__(self, folder: Path) -> None:
        self.model, self.pairs = make_model(folder / "model"), make_pairs(folder / "pairs.jsonl")
        self.cache, self.run_dir, self.root = folder / "cache", folder / "run", ROOT
        self.more = ["loss=orpo", "train.save_every=2"]

    def words(self, *more: str) -> list[str]:
        return ["train", *overrides(self.model, self.pairs, self.run_dir, *self.more), *more]

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.run_dir.rglob("*") if path.is_file()}

    def refused(self, said: str, *more: str) -> None:
        """The command is refused with `said`, exit code 2, and the folder stays as it is, byte for byte."""
        before = self.files()
        result = prefopt(self.words(*more), self.cache, self.root)
        assert result.returncode == 2, (result.stdout, result.stderr)
        assert "holds another run; it is left as it is" in result.stderr
        assert said in result.stderr
        assert "Traceback" not in result.stderr
        assert self.files() == before

    def accepted(self, *more: str) -> str:
        """The command ends well; what it said."""
        result = prefopt(self.words(*more), self.cache, self.root)
        assert result.returncode == 0, result.stderr
        assert [line["step"] for line in metrics(self.run_dir) if "lr" in line] == list(range(1, NUM_STEPS + 1))
        return result.stdout


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    made = Bed(tmp_path)
    kill_at_step(made.words(), made.cache, made.run_dir, 5)
    return made


def change_of(bed: Bed) -> list[dict[str, object]]:
    """What the last start of the manifest says that it changed."""
    return json.loads((bed.run_dir / "manifest.json").read_text())["starts"][-1]["changes"]


@pytest.mark.slow
def test_another_learning_rate(bed: Bed) -> None:
    done = last_step(bed.run_dir)
    rates = {line["step"]: line["lr"] for line in metrics(bed.run_dir) if "lr" in line}
    bed.refused("optim.lr: 0.001 -> 0.002", "optim.lr=2e-3")
    said = bed.accepted("optim.lr=2e-3", "--allow-change", "optim.lr")
    (change,) = change_of(bed)
    assert (change["key"], change["old"], change["new"]) == ("optim.lr", 0.001, 0.002)
    after = int(str(change["after_step"]))
    assert 0 < after <= done
    assert f"accepted from step {after + 1} on: optim.lr: 0.001 -> 0.002" in said
    assert f"resuming after step {after} of {NUM_STEPS}" in said
    for line in metrics(bed.run_dir):
        if "lr" in line and line["step"] in rates:
            factor = 1 if line["step"] <= after else 2
            assert line["lr"] == pytest.approx(factor * rates[line["step"]])
    # What counts from now on is what the last start ran with.
    assert "is done" in prefopt(bed.words("optim.lr=2e-3"), bed.cache).stdout
    bed.refused("optim.lr: 0.002 -> 0.001")


def other_rows(bed: Bed) -> None:
    text = bed.pairs.read_text().splitlines()
    bed.pairs.write_text("\n".join([text[0].replace("yes", "sure"), *text[1:]]) + "\n")


def other_tokenizer(bed: Bed) -> None:
    """Token 4 and token 5 change places."""
    file = bed.model / "tokenizer.json"
    stored = json.loads(file.read_text())
    vocabulary = stored["model"]["vocab"]
    four, five = (next(token for token, number in vocabulary.items() if number == wanted) for wanted in (4, 5))
    vocabulary[four], vocabulary[five] = 5, 4
    file.write_text(json.dumps(stored))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("harm", [other_rows, other_tokenizer])
def test_other_data_bytes_and_another_tokenizer(harm: Callable[[Bed], None], bed: Bed) -> None:
    harm(bed)
    bed.refused("data: ")
    said = bed.accepted("--allow-change", "data")
    (change,) = change_of(bed)
    assert change["key"] == "data"
    assert change["old"] != change["new"]
    assert "some may come again and others not at all" in said


@pytest.mark.slow
@pytest.mark.long
def test_another_template_named_in_the_settings_and_another_beta(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.more = ["loss=simpo", "train.save_every=2"]
    turns = [json.loads(line) for line in bed.pairs.read_text().splitlines()]
    chats = [
        {
            side: [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}]
            for side in ("chosen", "rejected")
        }
        for row in turns
    ]
    bed.pairs.write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    kill_at_step(bed.words(), bed.cache, bed.run_dir, 5)
    template = tmp_path / "template.jinja"
    template.write_text(TEMPLATE.replace("<|", "[").replace("|>", "]"))
    changed = [f"data.chat_template={template}", "loss.beta=3"]
    bed.refused("loss.beta: 2.0 -> 3.0", *changed)
    bed.refused("data.chat_template: null -> ", *changed)
    bed.refused("data.chat_template: null -> ", *changed, "--allow-change", "loss.beta")
    bed.accepted(*changed, "--allow-change", "loss.beta", "--allow-change", "data.chat_template")
    assert {change["key"] for change in change_of(bed)} == {"loss.beta", "data.chat_template", "data"}


@pytest.mark.slow
def test_other_code_of_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    root = tmp_path / "checkout"
    for name in ("prefopt", "recipes"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", str(root))
    bed = Bed(tmp_path)
    bed.root = root
    kill_at_step(bed.words(), bed.cache, bed.run_dir, 5, cwd=root)
    orpo = root / "prefopt" / "losses" / "orpo.py"
    text = orpo.read_text()
    orpo.write_text("# a comment changes nothing\n" + text)
    result = prefopt([*bed.words(), "--dry-run"], bed.cache, root)
    assert result.returncode == 0, result.stderr
    assert "(resumed)" in result.stdout
    assert "chosen - rejected" in text
    orpo.write_text(text.replace("chosen - rejected", "rejected - chosen", 1))
    bed.refused("code: loss orpo has changed since the run's last start")
    bed.accepted("--allow-change", "code")
    (change,) = change_of(bed)
    assert change["key"] == "code"


@pytest.mark.slow
@pytest.mark.long
def test_another_token_budget_is_in_force_though_the_run_kept_one(bed: Bed) -> None:
    kept = bed.run_dir / "token_budget.json"
    kept.write_text(json.dumps({"from_step": [[0, 100]]}))  # as a step that did not fit leaves it
    bed.accepted("train.tokens_per_micro_batch=4000", "--allow-change", "train.tokens_per_micro_batch")
    assert not kept.exists()
