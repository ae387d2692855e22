"""The Python API: its document runs, its numbers are those of transformers, its mistakes are sentences."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tiny import ROOT, environment, make_model, make_pairs, overrides

from prefopt import api
from prefopt.api import UserError

ROWS = [
    {"prompt": "ask one: ", "chosen": "yes yes", "rejected": "no"},
    {"prompt": "ask another: ", "chosen": "yes", "rejected": "no no no"},
]


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, prefopt.api\nassert not {'torch', 'transformers', 'numpy', 'hydra'} & set(sys.modules)\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_public_name_is_documented() -> None:
    for name in api.__all__:
        assert getattr(api, name).__doc__
    text = (ROOT / "docs" / "api.md").read_text()
    assert all(name in text for name in api.__all__ if name[0].islower())


@pytest.mark.slow
def test_the_examples_of_the_document_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.S)
    assert len(blocks) == 4
    env = {**environment(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("done runs/api/model 0.")
    assert len(lines) == 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[api.Model, api.Model]:
    """Two models that differ in their weights."""
    folder = tmp_path_factory.mktemp("api")
    paths = [make_model(folder / "policy", seed=1), make_model(folder / "reference", seed=2)]
    return api.load_model(str(paths[0]), device="cpu"), api.load_model(str(paths[1]), device="cpu")


@pytest.mark.slow
def test_a_run_is_trained_and_read_again(
    models: tuple[api.Model, api.Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    words = overrides(Path(models[0].path), make_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", "train.max_steps=2")
    run = api.train(words, quiet=True)
    assert capfd.readouterr().out == ""
    assert run.state == "done"
    assert run.model == tmp_path / "run" / "model"
    assert repr(run) == f"Run(dir='{run.dir}', name='{run.settings.name}', state='done', model='{run.model}')"
    assert run == api.load_run(tmp_path / "run") == api.train(api.compose(words), quiet=True)
    assert [line["step"] for line in api.read_metrics(run) if "loss" in line] == [1, 2]
    assert run.manifest["loss_semantics"] == {run.settings.loss["name"]: 1}


def by_transformers(path: str, prompt: str, response: str) -> float:
    """log p(response + EOS | prompt), token by token, with transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    before = tokenizer(prompt)["input_ids"]
    after = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    with torch.no_grad():
        logits = model(torch.tensor([before + after])).logits[0].double().log_softmax(-1)
    return sum(logits[len(before) - 1 + place, token].item() for place, token in enumerate(after))


def test_scores_are_those_of_transformers(models: tuple[api.Model, api.Model]) -> None:
    policy, reference = models
    found = api.score(policy, ROWS, reference=reference, beta=0.5)
    assert [one.id for one in found] == ["rows:1", "rows:2"]
    for one, row in zip(found, ROWS, strict=True):
        assert one.logps is not None
        assert one.mean_logps is not None
        assert one.rewards is not None
        for place, kind in enumerate(("chosen", "rejected")):
            logp = by_transformers(policy.path, row["prompt"], row[kind])
            other = by_transformers(reference.path, row["prompt"], row[kind])
            assert one.logps[place] == pytest.approx(logp, rel=1e-5)
            assert one.mean_logps[place] == pytest.approx(logp / one.num_tokens[place], rel=1e-5)
            assert one.rewards[place] == pytest.approx(0.5 * (logp - other), abs=1e-3)
            assert one.num_tokens[place] == len(row[kind]) + 1  # a byte is a token; EOS


def test_a_reference_without_a_template_reads_conversations_as_the_model_does(tmp_path: Path) -> None:
    import json

    paths = [make_model(tmp_path / name, seed=1) for name in ("trained", "base")]
    file = paths[1] / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config.pop("chat_template", None)
    file.write_text(json.dumps(config))
    (paths[1] / "chat_template.jinja").unlink(missing_ok=True)
    trained, base = (api.load_model(str(path), device="cpu") for path in paths)
    assert base.tokenizer.chat_template is None
    row = {
        "prompt": [{"role": "user", "content": "hi"}],
        **{side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")},
    }
    (found,) = api.score(trained, [row], base, beta=1.0)
    assert found.rewards == pytest.approx([0.0, 0.0], abs=1e-4)  # the weights are the same, and so are the ids
    assert base.tokenizer.chat_template is None


def test_a_loss_is_its_equation_on_the_scores(models: tuple[api.Model, api.Model]) -> None:
    policy, reference = models
    dpo = api.make_loss("dpo", {"beta": 0.5})
    batch = api.make_batch(ROWS, policy.tokenizer, dpo, reference=reference)
    value = float(api.loss_value(dpo, batch, api.respond(policy, batch, dpo)))
    margins = [one.rewards[0] - one.rewards[1] for one in api.score(policy, ROWS, reference, 0.5) if one.rewards]
    assert value == pytest.approx(sum(math.log1p(math.exp(-m)) for m in margins) / len(margins), rel=1e-5)


def test_a_loss_that_couples_the_step_sees_the_batch(models: tuple[api.Model, api.Model]) -> None:
    policy, reference = models
    aot = api.make_loss("aot")
    batch = api.make_batch(ROWS, policy.tokenizer, aot, reference=reference)
    assert math.isfinite(float(api.loss_value(aot, batch, api.respond(policy, batch, aot))))


def test_mistakes_are_sentences(models: tuple[api.Model, api.Model], tmp_path: Path) -> None:
    policy, _ = models
    with pytest.raises(UserError, match="did you mean 'simpo'"):
        api.make_loss("simppo")
    with pytest.raises(UserError, match="this loss needs a reference"):
        api.make_batch(ROWS, policy.tokenizer, api.make_loss("dpo"))
    with pytest.raises(UserError, match="this loss takes no reference"):
        api.make_batch(ROWS, policy.tokenizer, api.make_loss("simpo"), reference=policy)
    with pytest.raises(UserError, match="responses of other prompts"):
        api.make_batch(ROWS, policy.tokenizer, api.make_loss("kto"), reference=policy)
    with pytest.raises(UserError, match="rows:2: missing chosen"):
        api.score(policy, [ROWS[0], {"prompt": "a", "rejected": "b"}])
    with pytest.raises(UserError, match=r"rows:1: .*; 2 of 3 rows cannot be used") as refused:
        api.score(policy, [{**ROWS[0], "chosen": 5}, ROWS[0], {"prompt": "a", "rejected": "b"}])
    assert "mend such rows" in refused.value.hint
    with pytest.raises(UserError, match="fit no format") as refused:
        api.score(policy, [{"text": "a"}])
    assert "set format to one of" in refused.value.hint
    for call in (
        lambda: api.score(policy, ROWS, format="hh"),  # which the argument asks for, and the rows are not
        lambda: api.make_batch(ROWS, policy.tokenizer, api.make_loss("simpo"), format="hh"),
    ):
        with pytest.raises(UserError, match="rows:1: chosen does not begin with a Human turn"):
            call()
    for wrong, said in (
        (ROWS[0], "not one row"),
        ("p.jsonl", "not the name of a file"),
        ([1], "rows:1: a row must be"),
    ):
        with pytest.raises(UserError, match=said):
            api.score(policy, wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="score: model must be a model, not a str") as refused:
        api.score("runs/dpo/model", ROWS)  # type: ignore[arg-type]
    assert refused.value.hint == "give load_model('runs/dpo/model')"
    (tmp_path / "runs/a/model").mkdir(parents=True)
    for name in ("run.yaml", "model/config.json"):
        (tmp_path / "runs/a" / name).write_text("{}")
    with pytest.raises(UserError, match=r"path: .* has no config\.json") as refused:
        api.load_model(str(tmp_path / "runs/a"))
    assert "did you mean" in refused.value.hint
    with pytest.raises(UserError, match="load_model: there is no folder"):
        api.load_model(str(tmp_path / "runs/b"))
    with pytest.raises(UserError, match="no rows"):
        api.score(policy, [])
    with pytest.raises(UserError, match="belong together"):
        api.score(policy, ROWS, beta=0.1)
    loss = api.make_loss("reward_bt")
    batch = api.make_batch(ROWS, policy.tokenizer, loss)
    with pytest.raises(UserError, match="this loss is of a reward model"):
        api.respond(policy, batch, loss)
    with pytest.raises(UserError, match="is no run"):
        api.load_run(tmp_path)
    with pytest.raises(UserError, match="batchsize: there is no such key"):
        api.compose(["recipe=quickstart", "train.batchsize=3"])
