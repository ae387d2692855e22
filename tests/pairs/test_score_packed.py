"""How candidates become batches: exactly training's ids, every candidate a number or a reason, however they are cut."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from score_bed import chat, make_model, place, plain, score, with_head

from prefopt.data.encode import Encoder
from prefopt.data.fit import Limits
from prefopt.data.formats import recognise
from prefopt.data.pairing import Pairing
from prefopt.data.rows import Row
from prefopt.data.tokenizer import load_tokenizer
from prefopt.pairs.encode import CandidateEncoder, Tokens
from prefopt.pairs.packed import cut
from prefopt.pairs.score_models import open_language_model
from prefopt.records import Example


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))


EXAMPLES = [
    chat("Why?", "Because.", "Because of the light that scatters.", "x", "Because.", "I", "Who knows", name="c:1"),
    plain("Once upon a time", " there was a frog", " there", name="p:1"),
    chat("A longer question, with several words in it?", "Yes", "No, and I will say why not", name="c:2"),
]


def test_ids_are_those_of_training(tiny: Path) -> None:
    tokenizer = load_tokenizer(str(tiny))
    found = CandidateEncoder(tokenizer, 256, "tiny")(EXAMPLES[0])
    answers = [[{"role": "assistant", "content": c.text}] for c in EXAMPLES[0].candidates[:2]]
    value = {"prompt": [{"role": "user", "content": "Why?"}], "chosen": answers[0], "rejected": answers[1]}
    rows = [Row("f", 1, value)]
    needs = frozenset({"pairs"})
    limits = Limits(256, None, "drop")
    (trained,) = (
        Encoder(tokenizer, recognise(rows, "auto", "f"), needs, Pairing(), "append", limits).encode(rows)[0].to_pylist()
    )
    assert found.prompt == trained["prompt"]
    assert list(found.responses[:2]) == trained["responses"]


@pytest.mark.parametrize(
    ("asked", "needs"),
    [("verdicts", frozenset({"labels", "verdicts"})), ("comparisons", frozenset({"pairs", "comparisons"}))],
)
def test_what_a_ranker_is_asked_is_what_it_was_trained_on(tiny: Path, asked: str, needs: frozenset[str]) -> None:
    from prefopt.data.verdicts import COMPARISON

    tokenizer = load_tokenizer(str(tiny))
    rows = [Row("f", 1, {"prompt": "hello world", "chosen": " a good one", "rejected": " a bad one"})]
    limits = Limits(256, None, "drop")
    encoder = Encoder(tokenizer, recognise(rows, "auto", "f"), needs, Pairing(), "append", limits)
    (trained,) = encoder.encode(rows).kept.to_pylist()
    texts = [" a good one", " a bad one"]
    if asked == "comparisons":
        texts = [COMPARISON.format(first=a, second=b) for a, b in (texts, reversed(texts))]
    ours = CandidateEncoder(tokenizer, 256, "tiny")
    found = ours(plain("hello world"), texts)
    words = list(ours.verdicts(asked).values())
    assert found.prompt == trained["prompt"]
    assert [ids + word for ids, word in zip(found.responses, words)] == trained["responses"]
    assert [len(ids or ()) for ids in found.responses] == trained["given"]


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
def test_numbers_do_not_depend_on_how_batches_were_cut(tiny: Path, tmp_path: Path, layout: str) -> None:
    reward = with_head(tiny, tmp_path / "reward", ["good", "long"])
    weigh = {"name": "reward_heads", "weights": {"good": 1.0}}
    whole = score(weigh, place(reward=str(reward)), *EXAMPLES)
    for budget in (1, 40, 90, 300):
        for examples in (EXAMPLES, EXAMPLES[::-1]):
            found = score(weigh, place(reward=str(reward), tokens_per_batch=budget), *examples)
            for one, other in zip(whole, found if examples is EXAMPLES else found[::-1], strict=True):
                assert one.scores == pytest.approx(other.scores, abs=1e-5)
    model = open_language_model(place(policy=str(tiny)), str(tiny), "policy")
    tokens = [model.encoder(example) for example in EXAMPLES]
    expected = model.logps(tokens)
    model.policy.use_layout(layout)
    for budget in (1, 60, 300):
        object.__setattr__(model, "tokens_per_batch", budget)
        for one, other in zip(model.logps(tokens), expected, strict=True):
            assert one == pytest.approx(other, abs=1e-4, rel=1e-5)


def sizes(prompt: int, *responses: int) -> Tokens:
    ids = tuple([n * 100 + i for i in range(length)] for n, length in enumerate(responses))
    return Tokens("x", list(range(prompt)), ids, (None,) * len(ids))


def test_batches_hold_the_budget_and_every_response_once() -> None:
    tokens = [sizes(10, 5, 5, 30, 5), sizes(3, 2), sizes(50, 60), sizes(4, 4, 4)]
    batches = cut(tokens, 45, "shared")
    for batch in batches:
        size = sum(len(tokens[p.example].prompt) + sum(map(len, p.responses)) for p in batch)
        assert size <= 45 or (len(batch) == 1 and len(batch[0].responses) == 1)
    found = Counter((p.example, place) for batch in batches for p in batch for places in p.places for place in places)
    assert found == Counter((e, r) for e, one in enumerate(tokens) for r in range(len(one.responses)))
    # 50 + 60 is above the budget; 10 + 30 + 5; and 10 + 5 + 5 with 4 + 4 + 4 and 3 + 2.
    assert [[p.example for p in batch] for batch in batches] == [[2], [0], [0, 3, 1]]


def test_a_padded_batch_counts_every_row_as_the_longest() -> None:
    batches = cut([sizes(5, 15), sizes(5, 5), sizes(1, 2), sizes(1, 1)], 40, "padded")
    assert [[p.example for p in batch] for batch in batches] == [[0, 1], [2, 3]]


def test_equal_candidates_each_get_their_number_and_the_same_one(tiny: Path) -> None:
    for budget in (1, 16384):
        (judged, *_) = score({"name": "mean_logp"}, place(policy=str(tiny), tokens_per_batch=budget), *EXAMPLES)
        assert judged.scores[0] is not None
        assert judged.scores[0] == judged.scores[3]
        assert len(set(judged.scores)) == 5


def stages(tiny: Path, tmp_path: Path) -> list[tuple[dict, dict]]:
    one = str(with_head(tiny, tmp_path / "one", ["good"]))
    two = str(with_head(tiny, tmp_path / "two", ["good", "long"]))
    model = str(tiny)
    return [
        ({"name": "reward"}, {"reward": one}),
        ({"name": "reward_heads", "weights": {"0": 1.0}}, {"reward": two}),
        ({"name": "implicit"}, {"reward": model, "reference": model}),
        ({"name": "mean_logp"}, {"policy": model}),
        ({"name": "good_bad"}, {"reward": model}),
        ({"name": "good_bad", "renormalise": True}, {"reward": model}),
        ({"name": "a_vs_b"}, {"reward": model}),
        ({"name": "similarity"}, {"policy": model}),
    ]


def test_empty_and_over_long_candidates_have_a_reason_and_spoil_no_other(tiny: Path, tmp_path: Path) -> None:
    texts = ["fine", "", "long " * 100, "  \n", "fine too", "fine"]
    examples = [
        chat("Why?", *texts, name="c:1"),
        plain("Once", *[" " + t for t in texts], name="p:1"),
    ]
    expected = (None, "empty response", "too long", "empty response", None, None)
    for stage, settings in stages(tiny, tmp_path):
        aimed = [Example(e.id, e.prompt, e.candidates, e.is_chat, "fine") for e in examples]
        for judged in score(stage, place(**settings), *aimed):
            assert judged.reasons == expected, stage
            assert [s is None for s in judged.scores] == [r is not None for r in expected]
            assert judged.scores[0] == judged.scores[5], stage


def test_a_prompt_that_cannot_be_encoded_gives_every_candidate_the_reason(tiny: Path, tmp_path: Path) -> None:
    long_prompt = chat("word " * 80, "a", "b", name="c:9")
    (judged,) = score({"name": "mean_logp"}, place(policy=str(tiny)), long_prompt)
    assert judged.scores == (None, None)
    assert judged.reasons == ("too long", "too long")
    refusing = make_model(tmp_path / "refusing")
    (refusing / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    (judged,) = score({"name": "mean_logp"}, place(policy=str(refusing)), chat("Why?", "a", "b"))
    assert judged.reasons == ("chat template refuses the row",) * 2


def test_an_example_without_candidates_is_judged_as_such(tiny: Path, tmp_path: Path) -> None:
    for stage, settings in stages(tiny, tmp_path):
        (judged, other) = score(stage, place(**settings), chat("Why?", name="c:1"), chat("Why?", "a b", name="c:2"))
        assert judged.scores == ()
        assert judged.reasons == ()
        assert len(other.scores) == len(other.reasons) == 1


def test_scoring_leaves_no_gradients(tiny: Path) -> None:
    model = open_language_model(place(policy=str(tiny)), str(tiny), "policy")
    assert not any(p.requires_grad for p in model.policy.parameters())
    ((state, *_),) = model.states([model.encoder(EXAMPLES[0])])
    assert isinstance(state, torch.Tensor)
    assert not state.requires_grad
