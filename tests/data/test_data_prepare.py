"""From settings to encoded sets: split, cache, report, description."""

from __future__ import annotations

import json
import resource
import threading
from pathlib import Path

import numpy as np
import pytest

from prefopt.batch import Encoded
from prefopt.data.artefact import Artefact
from prefopt.data.dataset import DropError, Prepared, open_prepared, prepare
from prefopt.data.split import held_out
from prefopt.errors import RunError, UserError
from prefopt.settings import DataSettings, SourceSettings

PAIRS = frozenset({"pairs", "reference"})


def pairs(count: int, start: int = 0) -> list[dict]:
    return [
        {"prompt": f"question {n}", "chosen": f" good answer {n}", "rejected": " bad"}
        for n in range(start, start + count)
    ]


def sources(*paths: str, **settings: object) -> list[SourceSettings]:
    return [SourceSettings(path, **settings) for path in paths]


@pytest.fixture
def made(no_bos, tmp_path):
    """Prepares data settings with the tokenizer without BOS."""

    def make(tokenizer: str = no_bos, needs: frozenset[str] = PAIRS, **settings: object) -> Prepared:
        return prepare(DataSettings(**{"max_drop_fraction": 1.0, **settings}), tokenizer, needs, tmp_path / "cache")

    return make


def test_every_row_is_kept_in_order_with_lengths_as_arrays(made, jsonl):
    prepared = made(train=sources(jsonl(pairs(30))))
    train = prepared.train
    assert len(train) == 30
    assert [e.index for e in train] == list(range(30))
    assert [e.id for e in train] == [f"rows.jsonl:{n}" for n in range(1, 31)]
    assert isinstance(train[0], Encoded)
    assert train[-1] == train[29]
    assert train[3:5] == [train[3], train[4]]
    with pytest.raises(IndexError):
        train[30]
    assert train.prompt_lengths.tolist() == [len(e.prompt) for e in train]
    assert train.response_lengths.tolist() == [len(r) for e in train for r in e.responses]
    assert np.diff(train.response_offsets).tolist() == [2] * 30
    assert train.num_pairs.tolist() == [1] * 30
    assert train.sources == [(0, 30, 1.0)]
    assert train[7].pairs == [(0, 1)]
    assert (train.prompt_text(7), train.chosen_text(7)) == ("question 7", " good answer 7")
    assert (prepared.eval, prepared.left_out) == ({}, [])


def test_rows_of_one_source_lie_together_with_its_weight(made, jsonl):
    first, second = jsonl(pairs(5), "a.jsonl"), jsonl(pairs(7, 100), "b.jsonl")
    prepared = made(train=[SourceSettings(first, weight=2.0), SourceSettings(second, weight=0.5, limit=6)])
    assert prepared.train.sources == [(0, 5, 2.0), (5, 6, 0.5)]
    assert prepared.train[5].id == "b.jsonl:1"
    assert prepared.train[10].index == 10


def test_files_of_one_name_give_ids_that_differ(made, jsonl, tmp_path):
    (tmp_path / "other").mkdir()
    paths = jsonl(pairs(3)), jsonl(pairs(3, 50), "other/rows.jsonl")
    assert len({example.id for example in made(train=sources(*paths)).train}) == 6


def test_no_prompt_lies_on_both_sides_of_the_split(made, jsonl):
    rows = pairs(40) + [{**row, "chosen": " other"} for row in pairs(20)]
    prepared = made(train=sources(jsonl(rows)), eval_size=0.25)
    held = prepared.eval["heldout"]
    train_prompts = {prepared.train.prompt_text(i) for i in range(len(prepared.train))}
    held_prompts = {held.prompt_text(i) for i in range(len(held))}
    assert len(held_prompts) == 10  # a quarter of the 40 different prompts
    assert train_prompts.isdisjoint(held_prompts)
    assert len(held) + len(prepared.train) == 60
    assert [e.index for e in held] == list(range(len(held)))
    assert prepared.report["sets"]["heldout"]["prompts_also_in_train"] == 0


def test_the_split_depends_on_the_words_only(made, jsonl, with_bos):
    rows = pairs(40)
    path, turned = jsonl(rows), jsonl(rows[::-1], "turned.jsonl")

    def prompts(**more):
        held = made(eval_size=10.0, **more).eval["heldout"]
        return {held.prompt_text(i) for i in range(len(held))}

    assert len(prompts(train=sources(path))) == 10
    assert (
        prompts(train=sources(path))
        == prompts(train=sources(turned))
        == prompts(train=sources(path), tokenizer=with_bos)
    )


@pytest.mark.parametrize("size", [1.0, 30.0, -0.5, 2.5])
def test_an_impossible_eval_size_is_refused(size):
    with pytest.raises(UserError, match=r"data\.eval_size"):
        held_out(np.array([5, 5, 9, 9], dtype=np.uint64), size)


def test_named_eval_sets_stand_beside_the_held_out_rows(made, jsonl):
    other = jsonl(pairs(6, 10), "other.jsonl")
    prepared = made(train=sources(jsonl(pairs(20))), eval={"other": SourceSettings(other)}, eval_size=4.0)
    assert {name: len(rows) for name, rows in prepared.eval.items()} == {"heldout": 4, "other": 6}
    also = prepared.report["sets"]["other"]["prompts_also_in_train"]
    held = {prepared.eval["heldout"].prompt_text(i) for i in range(4)}
    assert also == len({f"question {n}" for n in range(10, 16)} - held)
    for name in ("heldout", "train"):
        with pytest.raises(UserError, match="this name is taken"):
            made(train=sources(other), eval={name: SourceSettings(other)}, eval_size=2.0)


def test_imitation_encodes_only_the_best_response_and_says_so(made, jsonl):
    prepared = made(train=sources(jsonl(pairs(4))), needs=frozenset())
    assert [len(e.responses) for e in prepared.train] == [1] * 4
    assert prepared.train.num_pairs.tolist() == [0] * 4
    (sentence,) = prepared.report["sources"][0]["conversions"]
    assert "4 rejected responses are not used by this method" in sentence


@pytest.mark.parametrize("row", [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "b", "label": True}])
def test_a_method_that_needs_pairs_refuses_data_without_any(made, jsonl, row, tmp_path):
    with pytest.raises(UserError, match=r"the method needs pairs, which these rows of format (sft|labels) do not have"):
        made(train=sources(jsonl([row])))
    assert not (tmp_path / "cache").exists()


MESSY = [
    {"prompt": "a", "chosen": " b", "rejected": " c"},
    {"prompt": "a", "chosen": None, "rejected": " c"},
    {"prompt": "a", "chosen": False, "rejected": " c"},
    {"prompt": "a", "chosen": " c", "rejected": " c"},
    {"prompt": "a", "chosen": "", "rejected": " c"},
    {"prompt": "a" * 99, "chosen": " b", "rejected": " c"},
    {"prompt": "a", "chosen": " d", "rejected": " c"},
]


def test_the_report_accounts_for_every_row(made, jsonl):
    prepared = made(train=sources(jsonl(MESSY)), max_length=50)
    (source,) = prepared.report["sources"]
    assert (source["read"], source["kept"], source["format"]) == (7, 2, "trl")
    assert source["dropped"] == {
        "chosen equals rejected": {"count": 1, "rows": [4]},
        "chosen is not a string": {"count": 1, "rows": [3]},
        "empty response": {"count": 1, "rows": [5]},
        "missing chosen": {"count": 1, "rows": [2]},
        "too long": {"count": 1, "rows": [6]},
    }
    assert (source["identical_pairs"], source["empty_responses"], source["duplicate_prompts"]) == (1, 1, 1)
    assert source["eos_kept"] == "4 of 4"
    assert source["bos_per_row"] == {"min": 0, "max": 0}
    assert source["prompt_tokens"]["max"] == 1
    assert [row["row"] for row in prepared.left_out] == [2, 3, 4, 5, 6]
    assert set(prepared.left_out[0]) == {"source", "row", "id", "reason", "detail"}
    assert "max_length 50" in prepared.left_out[-1]["detail"]
    json.dumps(prepared.report)


def test_truncation_and_lost_eos_are_counted(made, jsonl):
    prepared = made(train=sources(jsonl(pairs(3))), max_length=6, too_long="truncate_response")
    account = prepared.report["total"]
    lost = account["eos_lost"]
    assert lost > 0
    assert account["truncated"] == {"prompts": 0, "responses": lost}
    assert account["eos_kept"] == f"{6 - lost} of 6"


def test_too_many_rows_left_out_stops_with_the_reasons_and_the_account(made, jsonl):
    path = jsonl(MESSY)
    with pytest.raises(DropError, match=r"data\.train: 4 of 7 rows \(57.1%\) are left out") as error:
        made(train=sources(path), max_drop_fraction=0.5)
    assert "data.max_drop_fraction" in error.value.hint
    prepared = error.value.prepared
    assert prepared.report["total"]["read"] == 7
    assert (len(prepared.train), len(prepared.left_out)) == (3, 4)
    assert len(made(train=sources(path), max_drop_fraction=0.6).train) == 3


def test_no_row_left_is_refused_whatever_the_share(made, jsonl):
    with pytest.raises(DropError, match="none of 4 rows can be used: "):
        made(train=sources(jsonl(MESSY[1:5])), max_drop_fraction=1.0)
    with pytest.raises(UserError, match="no rows in it"):
        made(train=sources(jsonl([])))
    with pytest.raises(UserError, match="names no source"):
        made(train=[])


def test_the_second_call_finds_everything_in_the_cache(made, jsonl, no_bos):
    path = jsonl(pairs(10))
    first, again = made(train=sources(path)), made(train=sources(path))
    assert (first.report["from_cache"], again.report["from_cache"]) == (False, True)
    assert again.fingerprint == first.fingerprint
    assert list(again.train) == list(first.train)


def test_the_cache_does_not_know_where_the_file_lies(made, jsonl, tmp_path):
    made(train=sources(jsonl(pairs(10))))
    (tmp_path / "elsewhere").mkdir()
    assert made(train=sources(jsonl(pairs(10), "elsewhere/rows.jsonl"))).report["from_cache"]


def test_any_change_of_bytes_tokenizer_template_or_options_encodes_anew(made, jsonl, with_bos):
    path = jsonl(pairs(10))
    base = {"train": sources(path)}
    seen = {made(**base).fingerprint}
    changes = [
        {"max_length": 100},
        {"max_prompt_length": 50},
        {"too_long": "truncate_prompt"},
        {"eos": "keep"},
        {"pairs": "all"},
        {"needs": frozenset()},
        {"tokenizer": with_bos},
        {"chat_template": "hh"},
        {"train": sources(path, limit=9)},
        {"train": sources(path, format="trl", limit=8)},
    ]
    for change in changes:
        prepared = made(**{**base, **change})
        assert not prepared.report["from_cache"], change
        seen.add(prepared.fingerprint)
    Path(path).write_text(Path(path).read_text().replace("good", "fine", 1))
    assert not made(**base).report["from_cache"]
    seen.add(made(**base).fingerprint)
    assert len(seen) == len(changes) + 2


def test_weight_and_eval_size_change_the_fingerprint_but_encode_nothing(made, jsonl):
    path = jsonl(pairs(10))
    first = made(train=sources(path))
    for change in ({"train": sources(path, weight=2.0)}, {"train": sources(path), "eval_size": 2.0}):
        other = made(**change)
        assert other.report["from_cache"]
        assert other.fingerprint != first.fingerprint


def test_a_damaged_cache_entry_is_encoded_anew(made, jsonl, tmp_path):
    path = jsonl(pairs(10))
    first = made(train=sources(path))
    (rows,) = (tmp_path / "cache" / "encoded").glob("*/rows.arrow")
    content = bytearray(rows.read_bytes())
    content[len(content) // 2] ^= 1
    rows.write_bytes(content)
    again = made(train=sources(path))
    assert not again.report["from_cache"]
    assert again.fingerprint == first.fingerprint


def test_nothing_but_whole_artefacts_is_left_in_the_cache(made, jsonl, tmp_path):
    made(train=sources(jsonl(pairs(3))))
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(json.dumps(r) + "\n" for r in pairs(300)) + '{"prompt": "cut')
    with pytest.raises(UserError, match=r"bad\.jsonl:301"):
        made(train=sources(str(bad)))
    (entry,) = (tmp_path / "cache" / "encoded").iterdir()
    assert {file.name for file in entry.iterdir()} == {"rows.arrow", "left_out.jsonl", "manifest.json"}


def test_of_two_runs_that_start_at_once_one_tokenises_and_the_other_waits(made, jsonl, capsys):
    path = jsonl(pairs(3000))
    results: list[Prepared] = []
    threads = [threading.Thread(target=lambda: results.append(made(train=sources(path)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({r.fingerprint for r in results}) == 1
    assert sorted(r.report["from_cache"] for r in results) == [False, True]
    assert f"waiting for another run that is tokenising {path}" in capsys.readouterr().err


def test_a_cache_folder_that_cannot_be_made_is_a_failure_in_one_sentence(jsonl, no_bos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written") as error:
        prepare(DataSettings(train=sources(jsonl(pairs(2)))), no_bos, PAIRS, tmp_path / "file")
    assert "data.cache_dir" in error.value.hint


def test_a_full_disk_is_a_failure_that_leaves_nothing_behind(made, jsonl, tmp_path):
    path = jsonl(pairs(300))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(RunError, match="cannot be written"):
            made(train=sources(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "cache" / "encoded").iterdir()) == []


def test_a_rank_opens_what_was_described(made, jsonl):
    prepared = made(
        train=sources(jsonl(pairs(20)), weight=0.5),
        eval={"other": SourceSettings(jsonl(MESSY, "other.jsonl"))},
        eval_size=5.0,
    )
    opened = open_prepared(json.loads(json.dumps(prepared.describe())))
    assert opened.fingerprint == prepared.fingerprint
    assert list(opened.train) == list(prepared.train)
    assert opened.train.sources == prepared.train.sources
    assert {name: list(rows) for name, rows in opened.eval.items()} == {n: list(r) for n, r in prepared.eval.items()}
    assert opened.report == prepared.report
    assert opened.left_out == prepared.left_out


def test_a_rank_refuses_a_missing_or_changed_artefact(made, jsonl, tmp_path):
    prepared = made(train=sources(jsonl(pairs(20))))
    (rows,) = (tmp_path / "cache" / "encoded").glob("*/rows.arrow")
    rows.write_bytes(rows.read_bytes() + b"x")
    with pytest.raises(RunError, match="has changed"):
        open_prepared(prepared.describe())
    rows.unlink()
    with pytest.raises(RunError, match="missing or incomplete"):
        open_prepared(prepared.describe())


def test_rows_are_memory_mapped(made, jsonl):
    artefact: Artefact = made(train=sources(jsonl(pairs(3)))).train.parts[0].artefact
    assert [Path(f["filename"]).name for f in artefact.rows.cache_files] == ["rows.arrow"]


def test_error_names_the_first_long_row(made, jsonl):
    with pytest.raises(UserError, match=r"rows\.jsonl:6: too long"):
        made(train=sources(jsonl(MESSY)), max_length=50, too_long="error")


def test_plain_responses_that_stick_to_their_prompt_are_counted(made, jsonl):
    rows = [
        {"prompt": "The end.", "chosen": "She ran", "rejected": " She sat"},
        {"prompt": "a ", "chosen": "b", "rejected": "c"},
    ]
    (sentence,) = made(train=sources(jsonl(rows))).report["sources"][0]["conversions"]
    assert sentence.startswith("1 responses follow their prompt without white space")


def test_ranked_lists_can_give_several_pairs(made, jsonl):
    rows = [{"prompt": "a", "responses": [" b", " c", " d"], "scores": [0, 2, 1]}]
    prepared = made(train=sources(jsonl(rows)), pairs="all")
    assert set(prepared.train[0].pairs) == {(1, 0), (1, 2), (2, 0)}
    assert prepared.train[0].best == 1
    assert prepared.train.num_pairs.tolist() == [3]


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(jsonl, no_bos, tmp_path):
    path = jsonl(pairs(600) + MESSY)

    def digests(num_workers):
        settings = DataSettings(train=sources(path), num_workers=num_workers, max_drop_fraction=1.0)
        prepared = prepare(settings, no_bos, PAIRS, tmp_path / f"cache{num_workers}")
        assert not prepared.report["from_cache"]
        return prepared.train.parts[0].artefact.digests, prepared.left_out

    assert digests(1) == digests(2)


def test_the_content_of_a_set_is_its_words_whatever_file_order_tokenizer_and_method(made, jsonl, with_bos):
    def content(rows, tokenizer=None, needs=PAIRS, name="rows.jsonl", **more):
        train = sources(jsonl(pairs(5, 50), "train.jsonl"))
        held = {"held": SourceSettings(jsonl(rows, name), **more)}
        prepared = made(train=train, eval=held, needs=needs, **({"tokenizer": tokenizer} if tokenizer else {}))
        return prepared.report["sets"]["held"]["content"]

    known = content(pairs(6))
    assert content(pairs(6), with_bos) == known
    assert content(pairs(6), needs=frozenset()) == known
    assert content(pairs(6)[::-1], name="turned.jsonl") == known
    assert content(pairs(9), name="longer.jsonl", limit=6) == known
    others = [pairs(5), pairs(6, 1), [{**row, "chosen": " other"} for row in pairs(6)]]
    assert len({known, *(content(rows, name=f"{n}.jsonl") for n, rows in enumerate(others))}) == 4


def test_an_error_of_a_row_names_the_file_as_it_was_given(no_bos, tmp_path):
    turns = [
        [{"role": role, "content": text}] for role, text in (("user", "x"), ("assistant", "y"), ("assistant", "z"))
    ]
    (tmp_path / "b").mkdir()
    path = tmp_path / "b" / "pairs.jsonl"
    path.write_text(json.dumps(dict(zip(("prompt", "chosen", "rejected"), turns))) + "\n", encoding="utf-8")
    settings = DataSettings(train=[SourceSettings(str(path))])
    with pytest.raises(UserError, match="no chat template") as refused:
        prepare(settings, no_bos, frozenset({"pairs"}), tmp_path / "cache")
    assert refused.value.message.startswith(f"{path}:1: this row is a conversation")
