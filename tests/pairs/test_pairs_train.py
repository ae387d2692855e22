"""What `prefopt pairs` writes is what `prefopt train` reads: rows of every kind, other objectives, several policies."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from pairs_bed import BASE, CACHE, Made, make_base
from tiny import prefopt

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def base() -> str:
    return make_base()


def train(rows: Path, *more: str) -> None:
    """One step on rows that were made, which must go well."""
    words = [f"data.train=[{{path: {rows}}}]", f"model.path={BASE}", "train.max_steps=1", "train.batch_size=8"]
    limits = ["data.max_length=256", "data.max_drop_fraction=0", "launch.device=cpu", f"dir={rows.parent}/run"]
    done = prefopt(["train", *words, *limits, *more], CACHE, rows.parent)
    assert done.returncode == 0, (done.stdout, done.stderr)


def left_out(numbers: dict[str, dict[str, int]]) -> Counter[str]:
    return Counter(numbers["left_out"])


@pytest.mark.parametrize(
    ("select", "loss", "columns", "endings"),
    [
        (
            "best_vs_worst",
            "dpo",
            {"prompt", "chosen", "rejected", "score_chosen", "score_rejected"},
            ("jsonl", "parquet"),
        ),
        pytest.param("keep_all", "rrhf", {"prompt", "responses", "scores"}, ("jsonl",), marks=pytest.mark.long),
        pytest.param("top_k", "sft", {"prompt", "completion"}, ("jsonl",), marks=pytest.mark.long),
    ],
)
def test_every_kind_of_row_is_trained_on(
    select: str, loss: str, columns: set[str], endings: tuple[str, ...], tmp_path: Path
) -> None:
    made = Made(tmp_path / "out", (f"select={select}", "limit=60"))
    done = made.run()
    assert done.returncode == 0, done.stderr
    assert all(set(row) - {"y_ref", "provenance"} == columns for row in made.rows())
    for ending in endings:
        train(made.out / f"pairs.{ending}", f"loss={loss}", f"dir={tmp_path}/{ending}")


@pytest.mark.long
def test_scores_of_other_objectives_are_the_margins_of_modpo(tmp_path: Path) -> None:
    margins = "margins=[{name: python, function: prefopt.demo.manners:politeness}, {name: length}]"
    made = Made(tmp_path / "out", (margins, "limit=60"))
    done = made.run()
    assert done.returncode == 0, done.stderr
    from prefopt.demo.manners import politeness

    for row in made.rows():
        assert row["python_chosen"] == politeness(row["prompt"], row["chosen"])
        assert row["python_rejected"] == politeness(row["prompt"], row["rejected"])
        assert {"length_chosen", "length_rejected"} <= set(row)
    assert sorted(p.name for p in (made.out / "judged").iterdir()) == ["margins.0", "margins.1", "score"]
    columns = "data.margins=[{kind: column, name: python}, {kind: column, name: length}]"
    train(made.out / "pairs.jsonl", "loss=modpo", "loss.weights=[0.4,0.3,0.3]", columns)


def test_several_policies_answer_every_prompt_each_with_answers_of_its_own(base: str, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "other")
    made = Made(tmp_path / "out", (f"policy=[{BASE}, {tmp_path}/other]", "generate.n=2", "limit=40"))
    done = made.run()
    assert done.returncode == 0, done.stderr
    rows = made.rows("candidates.jsonl")
    assert all(
        [(c["source"]["policy"], c["source"]["sample"]) for c in row["candidates"]]
        == [(policy, number) for policy in (BASE, f"{tmp_path}/other") for number in (0, 1)]
        for row in rows
        if len(row["candidates"]) == 4
    )
    assert sum(len(row["candidates"]) == 4 for row in rows) > len(rows) // 2
    texts = [[c["text"] for c in row["candidates"]] for row in rows if len(row["candidates"]) == 4]
    assert any(of_one[:2] != of_one[2:] for of_one in texts)  # the same weights, and other random numbers


def test_a_prompt_that_one_policy_has_no_room_for_is_answered_by_the_other_and_counted_once(
    base: str, tmp_path: Path
) -> None:
    small = Path(shutil.copytree(base, tmp_path / "small"))
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 36}))
    questions = ["How does a lion sound?", "How does a lion sound? " * 4, "How does a lion sound? " * 30]
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps({"prompt": words}) + "\n" for words in questions))
    both = (f"policy=[{BASE}, {small}]", f"prompts={file}", "generate.n=2", "max_prompt_tokens=100")
    made = Made(tmp_path / "out", (*both, "generate.unfinished=keep", "select=keep_all"))
    done = made.run()
    assert done.returncode == 0, done.stderr
    lost = made.rows("left_out.jsonl")
    assert [(one["id"], one["reason"], one["text"]) for one in lost if "long" in one["reason"]] == [
        ("questions.jsonl:2", "prompt too long", ""),
        ("questions.jsonl:3", "prompt too long", None),
    ]
    numbers = made.stats()["prompts"]
    assert numbers["with_candidates"] == 2
    assert left_out(numbers)["prompt too long"] == 1
