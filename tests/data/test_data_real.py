"""Real preference data: every row is kept or named, and the ids spell what the file says."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from fuzz_rows import all_needs

from prefopt.data.dataset import DropError, Prepared, prepare
from prefopt.data.tokenizer import load_tokenizer
from prefopt.errors import UserError
from prefopt.settings import DataSettings, SourceSettings

PAIRS = frozenset({"pairs"})
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FILES = [p for p in sorted(DATA.rglob("*")) if p.is_file() and p.name != "README.md" and p.parent.name != "LICENSES"]


def prepare_file(path: Path, tokenizer: str, tmp_path: Path, needs: frozenset[str] = PAIRS, **more: object) -> Prepared:
    settings = DataSettings(train=[SourceSettings(str(path))], **{"max_length": 100_000, **more})
    return prepare(settings, tokenizer, needs, tmp_path)


def check_account(prepared: Prepared, num_rows: int) -> None:
    """Every row of the file is kept or left out, exactly once, and every response is closed."""
    kept = [int(example.id.rpartition(":")[2]) for example in prepared.train]
    out = [row["row"] for row in prepared.left_out]
    assert sorted(kept + out) == list(range(1, num_rows + 1))
    total = prepared.report["total"]
    assert (total["read"], total["kept"]) == (num_rows, len(kept))
    responses = total["responses"]
    assert total["eos_kept"] == f"{responses} of {responses}"


def test_every_row_of_the_hh_file_is_kept_or_named(shared, with_bos, tmp_path):
    path = shared / "data" / "hh_harmless" / "train.jsonl.gz"
    prepared = prepare_file(path, with_bos, tmp_path, chat_template="hh")
    check_account(prepared, 1844)
    total = prepared.report["total"]
    assert prepared.report["sources"][0]["format"] == "hh"
    assert {reason: about["count"] for reason, about in total["dropped"].items()} == {
        "dialogues differ before the last answer": 5,
        "empty response": 4,
    }
    assert total["duplicate_prompts"] == 2
    assert total["bos_per_row"] == {"min": 1, "max": 1}
    # The ids spell the dialogues, but for the white space behind a colon that the template writes.
    tokenizer = load_tokenizer(with_bos, None, "hh")
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        rows = [json.loads(line) for line in file]
    same = 0
    for example in prepared.train:
        row = rows[int(example.id.rpartition(":")[2]) - 1]
        for response, key in zip(example.responses, ("chosen", "rejected"), strict=True):
            said = tokenizer.decode(example.prompt + response)
            same += said == "<s>" + row[key] + "</s>"
            assert "".join(said.split()) == "".join(("<s>" + row[key] + "</s>").split())
    assert same > 0.99 * total["responses"]


@pytest.mark.parametrize(
    ("file", "num_rows", "name"),
    [
        ("llamafactory/dpo_en_demo.json.gz", 300, "sharegpt"),
        ("llamafactory/dpo_zh_demo.json.gz", 300, "sharegpt"),
        ("llamafactory/v1_dpo_demo.jsonl", 10, "trl"),
        ("medicalgpt/dpo_zh_500.jsonl.gz", 500, "sharegpt"),
        ("stories_happy/train.jsonl.gz", 1200, "ranked"),
    ],
)
def test_real_pairs_are_recognised_and_accounted_for(shared, chat, tmp_path, file, num_rows, name):
    prepared = prepare_file(shared / "data" / file, chat, tmp_path)
    assert prepared.report["sources"][0]["format"] == name
    check_account(prepared, num_rows)
    expected = {"stories_happy/train.jsonl.gz": 18}.get(file, 0)  # its rows whose scores are all tied
    assert len(prepared.left_out) == expected
    assert prepared.report["total"]["bos_per_row"] == {"min": 1, "max": 1}
    tokenizer = load_tokenizer(chat)
    for place in range(0, len(prepared.train), 29):
        example = prepared.train[place]
        bos = "<s>" if name == "ranked" else ""  # plain rows get the tokenizer's; a template writes its own
        assert tokenizer.decode(example.prompt) == bos + prepared.train.prompt_text(place)
        said = tokenizer.decode(example.responses[example.best]).removesuffix("<|im_end|>")
        assert said.strip() == prepared.train.chosen_text(place).strip()


@pytest.mark.parametrize(("file", "num_rows"), [("llmbar/natural.json.gz", 78), ("pandalm/train.json.gz", 843)])
def test_real_verdicts_are_recognised_and_accounted_for(shared, chat, tmp_path, file, num_rows):
    prepared = prepare_file(shared / "data" / file, chat, tmp_path, max_drop_fraction=0.5)
    assert prepared.report["sources"][0]["format"] == "judged"
    check_account(prepared, num_rows)
    with gzip.open(shared / "data" / file, "rt", encoding="utf-8") as text:
        rows = json.load(text)
    for place in range(0, len(prepared.train), 17):
        row = rows[int(prepared.train[place].id.rpartition(":")[2]) - 1]
        votes = [row["label"]] if "label" in row else [row[f"annotator{n}"] for n in (1, 2, 3)]
        better = max({1, 2}, key=votes.count)
        assert votes.count(better) > votes.count(3 - better)
        said = row.get(f"output_{better}", row.get(f"response{better}"))
        assert prepared.train.chosen_text(place).strip() == said.strip()


def test_real_labels_are_refused_for_pairs_and_half_imitated(shared, chat, tmp_path):
    path = shared / "data" / "llamafactory" / "kto_en_demo.json.gz"
    prepared = prepare_file(path, chat, tmp_path, needs=frozenset({"labels"}))
    assert sum(example.labels == [True] for example in prepared.train) == 150
    # The set's card counts two rows with text that looks like special tokens; these are not this tokenizer's.
    assert prepared.report["total"]["texts_with_special_tokens"] == 0
    imitated = prepare_file(path, chat, tmp_path, needs=frozenset(), max_drop_fraction=0.5)
    assert len(imitated.train) == 150
    assert imitated.report["total"]["dropped"]["undesirable response for imitation"]["count"] == 150


def test_real_instructions_are_imitated(shared, chat, tmp_path):
    prepared = prepare_file(shared / "data/llamafactory/alpaca_zh_demo.json.gz", chat, tmp_path, needs=frozenset())
    check_account(prepared, 1000)
    assert prepared.report["sources"][0]["format"] == "sft"


def test_messy_real_values_are_left_out_one_by_one(shared, no_bos, tmp_path):
    with gzip.open(shared / "data" / "pandalm" / "train.json.gz", "rt", encoding="utf-8") as file:
        rows = json.load(file)
    path = tmp_path / "pandalm.json"
    path.write_text(
        json.dumps([{"prompt": r["instruction"], "chosen": r["response1"], "rejected": r["response2"]} for r in rows])
    )
    prepared = prepare_file(path, no_bos, tmp_path, max_drop_fraction=0.2)
    check_account(prepared, 843)
    not_text = [r for r in rows if not (isinstance(r["response1"], str) and isinstance(r["response2"], str))]
    assert not_text
    found = [row for row in prepared.left_out if row["reason"].endswith("is not a string")]
    assert len(found) == len(not_text)


def test_a_tokenizer_that_marks_word_starts_keeps_one_bos_and_one_eos(shared, tmp_path):
    tokenizer = str(shared / "models" / "stories260K")
    prepared = prepare_file(
        shared / "data" / "hh_harmless" / "train.jsonl.gz",
        tokenizer,
        tmp_path,
        chat_template="hh",
        max_length=512,
        too_long="truncate_prompt",
        max_drop_fraction=0.2,
    )
    check_account(prepared, 1844)
    total = prepared.report["total"]
    assert total["bos_per_row"] == {"min": 1, "max": 1}
    assert total["truncated"]["prompts"] > 100
    assert (prepared.train.prompt_lengths + prepared.train.response_lengths.reshape(-1, 2).max(axis=1)).max() <= 512
    assert all(example.prompt[0] == 1 for example in prepared.train)


def num_rows_of(path: Path) -> int:
    """Counted without prefopt."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if ".jsonl" in path.name:
        return sum(bool(line.strip()) for line in content.split(b"\n"))
    return len(json.loads(content))


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(DATA).as_posix())
def test_every_real_file_through_every_need_it_could_serve(path, chat, tmp_path):
    """Every row is kept or named by each method's needs; a file that cannot serve is refused in one sentence."""
    became = [what_becomes(path, chat, tmp_path, needs) for needs in all_needs()]
    for one in became:
        if isinstance(one, Prepared):
            check_account(one, num_rows_of(path))
        elif isinstance(one, DropError):
            given = one.prepared
            assert len(given.left_out) == given.report["total"]["read"] == num_rows_of(path)
            assert all(row["reason"] and row["id"] for row in given.left_out)
        else:
            assert path.name in one.message
            assert one.exit_code == 2
            assert "\n" not in one.message
    if path.parent.name in ("llamafactory", "medicalgpt", "hh_harmless", "stories_happy", "outputs"):
        assert any(isinstance(one, Prepared) for one in became)


def what_becomes(path: Path, tokenizer: str, folder: Path, needs: frozenset[str]) -> Prepared | UserError:
    """The prepared file, or why it is refused."""
    try:
        return prepare_file(path, tokenizer, folder, needs, max_drop_fraction=1.0)
    except UserError as error:
        return error
