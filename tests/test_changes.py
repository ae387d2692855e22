"""What may differ when a run goes on: `--allow-change KEY`, its refusals, and what the manifest says afterwards."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefopt import losses
from prefopt.changes import NEVER, compare, go_on, newest_step
from prefopt.cli import main
from prefopt.config import compose, identity
from prefopt.disk import write_whole
from prefopt.errors import UserError
from prefopt.loss_code import loss_code
from prefopt.manifest import new_manifest, start_record
from prefopt.repeat import repeat
from prefopt.run_folder import MANIFEST, RESULT, RUN, State, clear_before_anew, find_state
from prefopt.settings import RunSettings

QUICKSTART = "recipe=quickstart"
SAME = "it does not differ from what the run was started with last"
WORLD = {"device": "cpu", "num_processes": 1, "engine": "DDP"}


def run_of(*overrides: str) -> RunSettings:
    """The quickstart without samples, which would bind it to its rows."""
    return compose([QUICKSTART, "sample.count=0", *overrides])


def existing(folder: Path, *overrides: str, fingerprint: str = "f0", step: int = 1) -> Path:
    """A run folder as a start leaves it, with a checkpoint after `step`; step 0: no step was done."""
    run = run_of(*overrides)
    folder.mkdir()
    manifest = new_manifest(asdict(run), identity(run), fingerprint, WORLD, ["prefopt"], loss_code(run.loss))
    write_whole(folder / MANIFEST, json.dumps(manifest))
    write_whole(folder / RUN, yaml.safe_dump(asdict(run)))
    if step:
        (folder / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    return folder


def found_in(folder: Path, run: RunSettings, allowed: list[str], fingerprint: str | None = "f0") -> Any:
    """The state, or the complaint."""
    try:
        return find_state(folder, run, fingerprint, allowed)
    except UserError as error:
        return f"{error} (exit code {error.exit_code})"


def started_again(folder: Path, run: RunSettings, fingerprint: str = "f0") -> list[str]:
    """The manifest after a start with `run`; the lines that it says."""
    manifest = json.loads((folder / MANIFEST).read_text())
    said = go_on(manifest, run, fingerprint, start_record(["prefopt"], WORLD), folder)
    write_whole(folder / MANIFEST, json.dumps(manifest))
    return said


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("optim.lr=2e-3", "optim.lr"),
        ("optim.lr=2e-3", "optim"),
        ("loss.lam=2", "loss.lam"),
        ("loss.lam=2", "loss"),
        ("optim.betas=[0.9,0.95]", "optim.betas.1"),
        ("optim.betas=[0.9,0.95]", "optim.betas"),
        ("data.train.0.limit=9", "data.train.0"),
        ("data.train.0.limit=9", "data"),
        ("train.max_steps=7", "train.max_steps"),
        ("optim.max_grad_norm=null", "optim.max_grad_norm"),
    ],
)
def test_a_named_difference_is_accepted_and_only_that(override: str, allowed: str, tmp_path: Path) -> None:
    folder, other = existing(tmp_path / "r"), run_of(override)
    complaint = found_in(folder, other, [])
    assert "holds another run" in complaint
    assert "(exit code 2)" in complaint
    assert found_in(folder, other, [allowed]) is State.RESUMED
    both = run_of(override, "train.batch_size=8")
    complaint = found_in(folder, both, [allowed])
    assert "train.batch_size: 32 -> 8" in complaint
    assert f"{override.split('=')[0]}:" not in complaint
    assert "--allow-change KEY" in complaint


def test_data_and_code_have_keys_of_their_own(tmp_path: Path) -> None:
    folder, run = existing(tmp_path / "r"), run_of()
    assert "data: f0 -> f1" in found_in(folder, run, [], "f1")
    assert found_in(folder, run, ["data"], "f1") is State.RESUMED
    assert found_in(folder, run, ["data"], None) is State.RESUMED  # the data are not known yet: judged later
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["loss_code"] = {"orpo": "0" * 16}
    write_whole(folder / MANIFEST, json.dumps(manifest))
    assert "code: loss orpo has changed since the run's last start" in found_in(folder, run, [])
    assert found_in(folder, run, ["code"]) is State.RESUMED


def test_an_allowed_setting_of_the_data_allows_the_rows_that_it_makes_others(tmp_path: Path) -> None:
    folder, other = existing(tmp_path / "r"), run_of("data.train.0.limit=9")
    assert found_in(folder, other, ["data.train.0.limit"], "f1") is State.RESUMED
    said = started_again(folder, other, "f1")
    assert "accepted from step 2 on: data: f0 -> f1 (rows, template or tokenizer)" in said


@pytest.mark.parametrize("override", ["optim.lr=2e-3", "data.max_drop_fraction=0.5"])
def test_other_rows_are_not_allowed_by_a_setting_on_which_no_row_depends(override: str, tmp_path: Path) -> None:
    folder = existing(tmp_path / "r")
    assert "data: f0 -> f1" in found_in(folder, run_of(override), [override.split("=")[0]], "f1")


def test_a_folder_whose_run_has_done_no_step_takes_another_run(tmp_path: Path) -> None:
    folder, other = existing(tmp_path / "r", step=0), run_of("model.path=elsewhere", "optim.lr=2e-3")
    assert found_in(folder, run_of(), []) is State.RESUMED
    assert found_in(folder, other, []) is State.ANEW
    assert found_in(folder, run_of(), [], "f1") is State.ANEW
    assert found_in(folder, other, ["optim"]) == (
        f"--allow-change optim: {folder} holds a run that has done no step\n"
        "  leave it out: such a folder takes other settings as they are (exit code 2)"
    )
    (folder / "metrics.jsonl").write_text('{"step": 0, "eval/heldout/loss": 0.5}\n{"step": 1, "lo')
    assert found_in(folder, other, []) is State.ANEW


@pytest.mark.parametrize("left", [*(f"checkpoints/{name}step-00000002" for name in ("", ".tmp-", "damaged-")), "model"])
def test_whatever_a_step_leaves_protects_its_run(left: str, tmp_path: Path) -> None:
    folder = existing(tmp_path / "r", step=0)
    (folder / left).mkdir(parents=True)
    assert "holds another run" in found_in(folder, run_of("optim.lr=2e-3"), [])


@pytest.mark.parametrize("line", ['{"step": 1, "lr": 0.1}', '{"step": 0}\n{"step": 3}', "{damaged", '{"no": "step"}'])
def test_a_line_of_a_step_and_one_that_nobody_can_read_protect_their_run(line: str, tmp_path: Path) -> None:
    folder = existing(tmp_path / "r", step=0)
    (folder / "metrics.jsonl").write_text(f"{line}\n")
    assert "holds another run" in found_in(folder, run_of("optim.lr=2e-3"), [])


def test_what_a_run_without_a_step_left_is_taken_away_before_another_starts(tmp_path: Path) -> None:
    folder = existing(tmp_path / "r", step=0)
    for name in ("exit.json", "data.json", "held_out.jsonl", "metrics.jsonl", "token_budget.json", "nonfinite.json"):
        (folder / name).write_text("{}")
    clear_before_anew(folder)
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, RUN]
    assert found_in(folder, run_of("optim.lr=2e-3"), []) is State.ANEW  # killed here, it is still free


@pytest.mark.parametrize(
    ("allowed", "said"),
    [
        ("optim.lr=1e-4", "takes a key without its value\n  --allow-change optim.lr optim.lr=1e-4"),
        ("optim.rl", "there is no such key\n  did you mean 'optim.lr'"),
        (
            "optim.eps",
            "it does not differ from what the run was started with last\n  leave it out; what differs: optim.lr",
        ),
        ("loss", "it does not differ"),
        ("data", "it does not differ"),
        ("code", "it does not differ"),
        ("launch.num_processes", "it does not differ"),
        ("zzzzzz", "there is no such key\n  what differs: optim.lr"),
        ("", "there is no such key"),
    ],
)
def test_what_would_have_no_effect_is_refused(allowed: str, said: str, tmp_path: Path) -> None:
    folder, other = existing(tmp_path / "r"), run_of("optim.lr=2e-3")
    assert f"--allow-change {allowed}: {said}" in found_in(folder, other, ["optim.lr", allowed])


def test_nothing_is_allowed_where_nothing_goes_on(tmp_path: Path) -> None:
    other = run_of("optim.lr=2e-3")
    assert "is a new run" in found_in(tmp_path / "none", other, ["optim.lr"])
    (tmp_path / "empty").mkdir()
    assert "is a new run" in found_in(tmp_path / "empty", other, ["optim.lr"])


@pytest.mark.parametrize("allowed", [[], ["optim.lr"]])
def test_a_finished_run_is_not_extended_and_the_hint_says_how_to_start_from_it(
    allowed: list[str], tmp_path: Path
) -> None:
    folder = existing(tmp_path / "r")
    (folder / RESULT).write_text("{}")
    complaint = found_in(folder, run_of("optim.lr=2e-3"), allowed)
    assert f"a finished run is not extended; start from it: model.path={folder}/model dir=NEW" in complaint
    assert "go on with what differs" not in complaint
    adapted = existing(tmp_path / "adapted", "model.lora={r: 4}")
    (adapted / RESULT).write_text("{}")
    complaint = found_in(adapted, run_of("model.lora={r: 4}", "optim.lr=2e-3"), allowed)
    assert f"prefopt export {adapted} out=MERGED, then model.path=MERGED dir=NEW" in complaint


@pytest.mark.parametrize(
    ("overrides", "allowed"),
    [
        (["model.path=elsewhere"], "model"),
        (["model.revision=abc"], "model"),
        (["model.lora={r: 4}"], "model.lora"),
        (["model.dtype=bfloat16"], "model.dtype"),
        (["optim.name=rmsprop"], "optim.name"),
        (["optim.name=rmsprop"], "optim"),
        (["model.dtype=bfloat16", "optim.bfloat16_weights=stochastic"], "optim.bfloat16_weights"),
        (["loss=reward_bt"], "loss"),
        (["sample.count=3"], "sample"),
    ],
)
def test_what_makes_a_checkpoint_meaningless_is_refused_whatever_is_allowed(
    overrides: list[str], allowed: str, tmp_path: Path
) -> None:
    folder = existing(tmp_path / "r")
    complaint = found_in(folder, run_of(*overrides), [allowed])
    assert "holds another run; it is left as it is" in complaint
    assert "(cannot be allowed: " in complaint
    assert "--allow-change" not in complaint


@pytest.mark.parametrize("change", ["r: 8", "alpha: 64", "target_modules: [q_proj]", "base: nf4"])
def test_other_adapters_are_refused_and_other_dropout_of_them_is_not(change: str, tmp_path: Path) -> None:
    folder = existing(tmp_path / "r", "model.lora={r: 4}")
    key = change.split(":")[0]
    refused = run_of(f"model.lora={{r: 4, {change}}}" if key != "r" else f"model.lora={{{change}}}")
    assert "cannot be allowed" in found_in(folder, refused, ["model.lora"])
    dropout = run_of("model.lora={r: 4, dropout: 0.1}")
    assert found_in(folder, dropout, ["model.lora.dropout"]) is State.RESUMED


def test_every_setting_that_is_never_allowed_is_a_setting() -> None:
    from prefopt.fill import known_keys

    assert set(NEVER) <= set(known_keys(RunSettings))


def test_the_best_checkpoint_stays_the_best_by_what_chose_it(tmp_path: Path) -> None:
    first, second = (f"train.best_metric=eval/heldout/{name}" for name in ("loss", "rewards/accuracy"))
    chosen = existing(tmp_path / "chosen", first)
    assert "cannot be allowed: the best checkpoint so far was chosen by it" in found_in(
        chosen, run_of(second), ["train.best_metric"]
    )
    plain = existing(tmp_path / "plain")
    assert found_in(plain, run_of(second), ["train.best_metric"]) is State.RESUMED


def test_answers_before_training_belong_to_their_rows(tmp_path: Path) -> None:
    folder = existing(tmp_path / "r", "sample.count=3")
    assert "leave samples out" in found_in(folder, run_of("sample.count=3"), ["data"], "f1")
    without = run_of("sample.count=0")
    assert found_in(folder, without, ["data", "sample.count"], "f1") is State.RESUMED


def test_what_was_accepted_is_recorded_and_holds_from_then_on(tmp_path: Path) -> None:
    folder, old = existing(tmp_path / "r", step=6), run_of()
    new = run_of("optim.lr=2e-3")
    said = started_again(folder, new)
    assert said == ["accepted from step 7 on: optim.lr: 0.001 -> 0.002"]
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["starts"][1]["changes"] == [{"key": "optim.lr", "old": 0.001, "new": 0.002, "after_step": 6}]
    assert "changes" not in manifest["starts"][0]
    assert manifest["settings"]["optim"]["lr"] == 0.002
    assert manifest["identity"] == identity(new)

    assert found_in(folder, new, []) is State.RESUMED
    assert "optim.lr: 0.002 -> 0.001" in found_in(folder, old, [])
    assert "does not differ" in found_in(folder, new, ["optim.lr"])
    assert started_again(folder, new) == []
    assert "changes" not in json.loads((folder / MANIFEST).read_text())["starts"][2]


@pytest.mark.parametrize("override", ["train.batch_size=8", "train.seed=7", "data.train.0.limit=9"])
def test_what_moves_the_position_in_the_data_says_so(override: str, tmp_path: Path) -> None:
    folder = existing(tmp_path / "r", step=6)
    said = started_again(folder, run_of(override))
    assert any("some may come again and others not at all" in line for line in said)


def test_other_rows_under_a_best_metric_say_what_stays_to_beat(tmp_path: Path) -> None:
    best = "train.best_metric=eval/heldout/loss"
    folder = existing(tmp_path / "r", best, step=6)
    said = started_again(folder, run_of(best), "f1")
    assert "the best eval/heldout/loss so far was measured before that, and stays the one to beat" in said
    assert json.loads((folder / MANIFEST).read_text())["data_fingerprint"] == "f1"


def test_a_run_of_an_older_prefopt_goes_on_and_says_what_cannot_be_compared(tmp_path: Path) -> None:
    folder, run = existing(tmp_path / "r"), run_of()
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["loss_code"]
    write_whole(folder / MANIFEST, json.dumps(manifest))
    assert found_in(folder, run, []) is State.RESUMED
    (line,) = started_again(folder, run)
    assert "no code of the loss: it cannot be compared" in line
    assert json.loads((folder / MANIFEST).read_text())["loss_code"] == loss_code(run.loss)
    assert started_again(folder, run) == []


def test_the_newest_checkpoint_is_known_by_its_name(tmp_path: Path) -> None:
    assert newest_step(tmp_path) == 0
    for name in ("step-00000009", "step-00000012", ".tmp-step-00000015", "damaged-step-00000018"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert newest_step(tmp_path) == 12


def test_a_run_that_was_changed_on_the_way_is_not_repeated(tmp_path: Path) -> None:
    folder = existing(tmp_path / "r")
    assert repeat(folder, [])[1] == "f0"
    started_again(folder, run_of("optim.lr=2e-3"))
    with pytest.raises(UserError, match=r"went on with another optim\.lr"):
        repeat(folder, [])


def test_a_repeated_run_names_what_set_each_setting_as_far_as_its_folder_knows(tmp_path: Path) -> None:
    folder = existing(tmp_path / "r")
    assert repeat(folder, [])[0].origins["optim.lr"] == str(folder / MANIFEST)  # of an older prefopt
    manifest = json.loads((folder / MANIFEST).read_text())
    write_whole(folder / MANIFEST, json.dumps(manifest | {"sources": {"optim.lr": "recipe/quickstart.yaml"}}))
    again, _ = repeat(folder, [])
    said = f"recipe/quickstart.yaml (of {folder})"
    assert again.origins["optim.lr"] == said
    assert again.origins["dir"] == f"--repeat {folder}"
    assert repeat(folder, ["dir=x"])[0].origins["dir"] == "command line"
    second = existing(tmp_path / "r2")
    write_whole(second / MANIFEST, json.dumps(manifest | {"sources": again.origins}))
    assert repeat(second, [])[0].origins["optim.lr"] == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "loss.lam=1,2"], "--allow-change goes on with one run, here"),
        (["hydra/launcher=slurm"], "--allow-change goes on with one run, here"),
        (["--sbatch-only"], "--allow-change goes on with one run, here"),
        (["--repeat", "x"], "--allow-change has no effect beside --repeat"),
        (["--show-config"], "--allow-change has no effect beside --show-config"),
        (["--dry-run"], "is a new run, which nothing can differ from"),
        ([], "is a new run, which nothing can differ from"),
    ],
)
def test_it_is_for_one_run_that_goes_on(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", QUICKSTART, "--allow-change", "optim.lr", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def copied_losses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The methods in a folder of their own, in which `loss_code` looks from now on."""
    (there,) = losses.__path__
    folder.mkdir()
    for file in Path(there).glob("*.py"):
        (folder / file.name).write_text(file.read_text())
    monkeypatch.setattr(losses, "__path__", [str(folder)])
    return folder


def edited(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) >= 1
    file.write_text(text.replace(old, new, 1))


def test_comments_docstrings_and_layout_are_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = loss_code({"name": "dpo"})
    folder = copied_losses(tmp_path / "losses", monkeypatch)
    assert loss_code({"name": "dpo"}) == before
    text = (folder / "dpo.py").read_text()
    edited(folder / "dpo.py", '"""', '"""Other words. ')
    edited(folder / "dpo.py", "    beta: float", "    # a comment\n\n    beta: float")
    edited(
        folder / "dpo.py",
        "-logsigmoid(self.beta * (chosen - rejected))",
        "-logsigmoid(\n self.beta * (chosen - rejected)\n )",
    )
    assert (folder / "dpo.py").read_text() != text
    assert loss_code({"name": "dpo"}) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("dpo.py", "chosen - rejected", "chosen + rejected"),
        ("dpo.py", "beta: float = 0.1", "beta: float = 0.2"),
        ("numerics.py", "def logsigmoid", "UNUSED = 1\n\n\ndef logsigmoid"),
    ],
)
def test_a_sign_a_default_and_what_is_imported_are(
    file: str, old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: loss_code({"name": name}) for name in ("dpo", "sft")}
    edited(copied_losses(tmp_path / "losses", monkeypatch) / file, old, new)
    assert loss_code({"name": "dpo"}) != before["dpo"]
    assert loss_code({"name": "sft"}) == before["sft"]  # which imports none of it


def test_the_parts_of_a_mix_are_code_too() -> None:
    settings: dict[str, Any] = {"name": "mix", "parts": [{"name": "dpo", "weight": 1.0}, {"name": "sft"}]}
    assert sorted(loss_code(settings)) == ["dpo", "mix", "sft"]
    assert loss_code(settings)["dpo"] == loss_code({"name": "dpo"})["dpo"]


def test_every_method_has_a_digest_of_its_own() -> None:
    found = {name: loss_code({"name": name})[name] for name in losses.names()}
    assert len(set(found.values())) == len(found)


def test_another_method_differs_by_its_name_and_not_by_its_code(tmp_path: Path) -> None:
    folder = existing(tmp_path / "r")
    manifest = json.loads((folder / MANIFEST).read_text())
    keys = {found.key for found in compare(manifest, run_of("loss=simpo"), "f0")}
    assert "loss.name" in keys
    assert "code" not in keys
