"""Scores by models are those of plain forwards of transformers, one sequence at a time; wrong models are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from score_bed import chat, ids_of, make_model, own_heads, own_logps, place, plain, score, with_head
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from prefopt.errors import RunError, UserError
from prefopt.pairs.registry import typed
from prefopt.recipe_files import packaged, title

STAGES = ["a_vs_b", "good_bad", "implicit", "mean_logp", "reward", "reward_heads", "similarity"]
STORIES = [
    plain("Lily found a red flower.", " She was happy.", " Her mom smiled and she ran home.", " No.", name="s:1"),
    plain("Ben saw a small frog in the park. He", " wanted to play with it.", " sat down.", name="s:2"),
]
CHATS = [
    chat("Why is the sky blue?", "It scatters light.", "No idea", name="c:1"),
    chat("Hi", "Hello! What can I do?", "h", name="c:2"),
]


@pytest.fixture(scope="module")
def stories(shared: Path) -> Path:
    return shared / "models" / "stories260K"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("reference"), seed=1)


@pytest.mark.parametrize("name", STAGES)
def test_a_recipe_states_every_key_and_default_of_its_stage(name: str) -> None:
    file = packaged() / "pairs" / "score" / f"{name}.yaml"
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == typed("score", {"name": name})
    assert title(file)


@pytest.mark.parametrize("name", ["stories", "babyllama"])
def test_mean_logp_is_that_of_separate_forwards(name: str, shared: Path) -> None:
    folder = shared / "models" / {"stories": "stories260K", "babyllama": "babyllama105"}[name]
    found = score({"name": "mean_logp"}, place(policy=str(folder)), *STORIES)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for example, judged in zip(STORIES, found, strict=True):
        lengths = [len(ids_of(tokenizer, example, c.text)[1]) for c in example.candidates]
        expected = [sum_ / length for sum_, length in zip(own_logps(folder, example), lengths)]
        assert judged.scores == pytest.approx(expected, abs=1e-5)
        assert judged.reasons == (None,) * len(expected)


def test_conversations_are_scored_through_the_chat_template(tiny: Path) -> None:
    found = score({"name": "mean_logp"}, place(policy=str(tiny)), *CHATS)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    for example, judged in zip(CHATS, found, strict=True):
        lengths = [len(ids_of(tokenizer, example, c.text)[1]) for c in example.candidates]
        expected = [sum_ / length for sum_, length in zip(own_logps(tiny, example), lengths)]
        assert judged.scores == pytest.approx(expected, abs=1e-5)


def test_the_implicit_reward_is_beta_times_the_log_ratio_of_separate_forwards(tiny: Path, reference: Path) -> None:
    where = place(reward=str(tiny), reference=str(reference))
    examples = [*CHATS, *STORIES]
    for example, judged in zip(examples, score({"name": "implicit", "beta": 0.5}, where, *examples), strict=True):
        expected = [0.5 * (p - r) for p, r in zip(own_logps(tiny, example), own_logps(reference, example))]
        assert judged.scores == pytest.approx(expected, abs=1e-4)
        assert [d["logp"] for d in judged.details] == pytest.approx(own_logps(tiny, example), abs=1e-4)
    (same,) = score({"name": "implicit", "model": str(reference)}, where, CHATS[0])
    assert same.scores == (0.0, 0.0)


def test_a_reward_is_that_of_separate_forwards(stories: Path, tiny: Path, tmp_path: Path) -> None:
    one = with_head(stories, tmp_path / "one", ["good"])
    other = with_head(tiny, tmp_path / "other", ["good"], pad_token_id=1)  # EOS is padding, as often
    for folder, examples in ((one, STORIES), (other, [*CHATS, *STORIES])):
        for example, judged in zip(examples, score({"name": "reward"}, place(reward=str(folder)), *examples)):
            own = own_heads(folder if folder is one else without_padding(folder, tmp_path / "plain"), example)
            assert judged.scores == pytest.approx([value for (value,) in own], rel=1e-4, abs=1e-5)


def without_padding(folder: Path, to: Path) -> Path:
    """The same model for transformers, which would else look for the reward before the EOS."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.config.pad_token_id = None
    model.save_pretrained(to)
    AutoTokenizer.from_pretrained(folder).save_pretrained(to)
    return to


def test_several_heads_are_weighed_and_kept(tiny: Path, tmp_path: Path) -> None:
    folder = with_head(tiny, tmp_path / "heads", ["help", "truth", "length"])
    stage = {"name": "reward_heads", "weights": {"help": 1.0, "2": -0.25}}
    for example, judged in zip(CHATS, score(stage, place(reward=str(folder)), *CHATS), strict=True):
        own = own_heads(folder, example)
        assert judged.scores == pytest.approx([help_ - 0.25 * length for help_, _, length in own], abs=1e-5)
        for details, values in zip(judged.details, own, strict=True):
            assert details["heads"] == pytest.approx(dict(zip(["help", "truth", "length"], values)), abs=1e-5)


def test_a_reward_model_reads_text_through_its_own_tokenizer_and_template(stories: Path, tmp_path: Path) -> None:
    policy = make_model(tmp_path / "policy")
    folder = with_head(make_model(tmp_path / "base"), tmp_path / "reward", ["good"])
    template = (
        (policy / "chat_template.jinja").read_text().replace("<|user|>", "").replace("<|", "[").replace("|>", "]")
    )
    (folder / "chat_template.jinja").write_text(template)
    where = place(policy=str(stories), chat_template="chatml", reward=str(folder))
    (judged,) = score({"name": "reward"}, where, CHATS[0])
    assert judged.scores == pytest.approx([value for (value,) in own_heads(folder, CHATS[0])], abs=1e-5)
    assert "[assistant]" in AutoTokenizer.from_pretrained(folder).chat_template.replace("{{ m['role'] }}", "assistant")


def test_adapters_score_as_peft_has_them(tiny: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model

    torch.manual_seed(3)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), config).save_pretrained(tmp_path / "adapters")
    merged = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapters").merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "merged")
    where = place(reward=str(tmp_path / "adapters"), reference=str(tiny))
    (judged,) = score({"name": "implicit", "beta": 1.0}, where, CHATS[0])
    ratios = [p - r for p, r in zip(own_logps(tmp_path / "merged", CHATS[0]), own_logps(tiny, CHATS[0]))]
    assert judged.scores == pytest.approx(ratios, abs=1e-4)
    assert max(map(abs, ratios)) > 0.01


def test_adapters_of_a_reward_model_bring_their_head(tiny: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(4)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="SEQ_CLS")
    model = get_peft_model(AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1), config)
    model.save_pretrained(tmp_path / "adapters")
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "merged")
    (judged,) = score({"name": "reward"}, place(reward=str(tmp_path / "adapters")), CHATS[0])
    assert judged.scores == pytest.approx([value for (value,) in own_heads(tmp_path / "merged", CHATS[0])], abs=1e-5)


def refusal(stage: dict, **settings: object) -> str:
    with pytest.raises(UserError) as caught:
        score(stage, place(**settings), CHATS[0])
    assert "model.path" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_head_is_refused_before_anything_is_scored(tiny: Path, tmp_path: Path) -> None:
    one = str(with_head(tiny, tmp_path / "one", ["good"]))
    three = str(with_head(tiny, tmp_path / "three", ["help", "truth", "length"]))
    weigh = {"name": "reward_heads", "weights": {"help": 1.0}}
    assert "reward: " in refusal({"name": "reward"}, reward=str(tiny))
    assert "has no trained scalar head" in refusal({"name": "reward"}, reward=str(tiny))
    assert "has no trained scalar head" in refusal(weigh, reward=str(tiny))
    assert "has a head of 3 labels" in refusal({"name": "reward"}, reward=three)
    assert "has a head of one label" in refusal(weigh, reward=one)
    for stage, settings in (
        ({"name": "mean_logp"}, {"policy": one}),
        ({"name": "good_bad"}, {"reward": one}),
        ({"name": "a_vs_b"}, {"reward": three}),
        ({"name": "implicit"}, {"reward": str(tiny), "reference": one}),
        ({"name": "similarity"}, {"policy": one}),
    ):
        assert "is a reward model" in refusal(stage, **settings)


def test_weights_of_labels_that_are_not_there_are_refused_with_the_names_that_are(tiny: Path, tmp_path: Path) -> None:
    folder = str(with_head(tiny, tmp_path / "three", ["help", "truth", "length"]))
    for weights, words in (
        ({}, "the labels of"),
        ({"hlep": 1.0}, "did you mean 'help'"),
        ({"3": 1.0}, "weights.3"),
        ({"truth": 1.0, "1": 2.0}, "truth twice"),
    ):
        said = refusal({"name": "reward_heads", "weights": weights}, reward=folder)
        assert words in said
        assert "help, truth, length" in said or "twice" in said
    assert "are all 0" in refusal({"name": "reward_heads", "weights": {"help": 0.0}}, reward=folder)


def test_a_missing_model_is_named_by_its_key(tiny: Path, tmp_path: Path) -> None:
    assert "score=reward needs a reward model, and reward names none" in refusal({"name": "reward"})
    assert "reference names none" in refusal({"name": "implicit"}, reward=str(tiny))
    assert "there is no policy" in refusal({"name": "mean_logp"})
    assert "which of the 2 policies" in refusal({"name": "similarity"}, policy=[str(tiny), str(tiny)])
    assert refusal({"name": "reward"}, reward=str(tmp_path / "absent")).startswith("reward: there is no folder")
    assert "beta must be above 0" in refusal({"name": "implicit", "beta": 0.0})


def test_a_reference_with_another_tokenizer_is_refused(tiny: Path, stories: Path) -> None:
    assert "has another tokenizer" in refusal({"name": "implicit"}, reward=str(tiny), reference=str(stories))


def test_a_conversation_for_a_model_without_a_template_names_the_row(stories: Path) -> None:
    said = refusal({"name": "mean_logp"}, policy=str(stories))
    assert said.startswith("c:1: this prompt is a conversation")
    assert "chatml" in said


def test_a_number_that_is_not_finite_ends_the_run_and_names_the_row(tiny: Path, tmp_path: Path) -> None:
    folder = with_head(tiny, tmp_path / "huge", ["good"], scale=3e37)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.score.weight.copy_(model.score.weight.sign() * 3e38)
    model.save_pretrained(folder)
    with pytest.raises(RunError, match=r"c:1: the reward that .*huge gives to candidate \d is not finite"):
        score({"name": "reward"}, place(reward=str(folder)), CHATS[0])
