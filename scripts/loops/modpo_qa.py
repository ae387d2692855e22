"""MODPO with three objectives on long-form answers: what people prefer, relevance, and factuality.

shared/data/qa_feedback: four answers to a question, six comparisons of them by people, and, of the first answer alone,
which characters are irrelevant, redundant or incoherent, and which are unverifiable or wrong. Labels of one answer are
no margin of a pair, so that each aspect gets a model of its own (KTO on the labels), whose implicit reward is then the
margin of both responses. Questions stand without their passages, which are six times longer than stories260K's context.

A policy is a point: of held-out questions, how often its implicit reward orders two answers as people did, and the
area under the curve by which it tells first answers with an aspect from those without.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from statistics import fmean, median

from loops.measure import prefopt
from loops.stories import MODEL, SHARED

ASPECTS = {
    "relevance": {"Irrelevant", "Redundant", "Incoherent"},
    "factuality": {"Unverifiable", "Wrong-Grounding"},
}
"""Types of error that an answer with the aspect has little of."""
WEIGHTS = ((1, 0, 0), (0.8, 0.1, 0.1), (0.34, 0.33, 0.33), (0.2, 0.7, 0.1), (0.2, 0.1, 0.7))
NUM_HELDOUT = 100
COMPARED = tuple(combinations(range(4), 2))


def run(folder: Path, seed: int) -> dict[str, dict[str, float]]:
    """Of each weighting what its implicit reward makes of the held-out questions."""
    folder.mkdir(parents=True, exist_ok=True)
    records = _records()
    random.Random(seed).shuffle(records)
    heldout, train = records[:NUM_HELDOUT], records[NUM_HELDOUT:]
    pairs = _write(folder / "pairs.jsonl", [row for record in train for row in _pairs(record)])
    answers = _write(folder / "answers.jsonl", [_all_answers(record) for record in heldout])
    common = ["train.batch_size=32", f"train.seed={seed}", "train.eval_every=never", "launch.device=cpu"]
    common += ["launch.num_processes=1", "data.max_length=512", "data.max_drop_fraction=0.5"]

    def trained(name: str, *words: str) -> Path:
        out = folder / name
        prefopt(["train", *words, *common, f"dir={out}"], folder / f"{name}.log")
        return out / "model"

    start = trained("sft", "loss=sft", f"model.path={MODEL}", f"data.train=[{{path: {pairs}}}]", "optim.lr=1e-3")
    margins = []
    for aspect in ASPECTS:
        labels = _write(folder / f"{aspect}.jsonl", list(_labels(train, aspect)))
        words = ["loss=kto", f"model.path={start}", f"data.train=[{{path: {labels}}}]", "optim.lr=3e-4"]
        margins.append(f"{{kind: implicit, path: {trained(aspect, *words, 'train.epochs=3')}, beta: 0.1}}")
    found = {}
    for weights in WEIGHTS:
        name = "-".join(f"{w:g}" for w in weights)
        words = ["loss=modpo", f"loss.weights=[{','.join(map(str, weights))}]", f"data.margins=[{', '.join(margins)}]"]
        words += [f"model.path={start}", f"data.train=[{{path: {pairs}}}]", "optim.lr=3e-4", "train.epochs=1"]
        policy, scored = trained(name, *words), folder / f"scored-{name}"
        asked = [f"prompts={answers}", "generate=given", "score=implicit", f"score.model={policy}"]
        asked += [f"reference={start}", "select=keep_all", f"out={scored}"]
        prefopt(["pairs", *asked], folder / f"{name}.log")
        found[" / ".join(f"{w:g}" for w in weights)] = _figures(scored / "candidates.jsonl", heldout)
    return found


def _records() -> list[dict]:
    with gzip.open(SHARED / "data" / "qa_feedback" / "train.json.gz", "rt", encoding="utf-8") as file:
        return [record for record in json.load(file) if len({*_answers(record)}) == 4]


def _prompt(record: dict) -> str:
    return record["question"].strip() + "\n"


def _answers(record: dict) -> list[str]:
    return [record[f"prediction {n}"].strip() for n in (1, 2, 3, 4)]


def _pairs(record: dict) -> Iterator[dict]:
    answers = _answers(record)
    for (i, j), verdict in zip(COMPARED, record["preference"], strict=True):
        if verdict:
            better, worse = (i, j) if verdict == 1 else (j, i)
            yield {"prompt": _prompt(record), "chosen": answers[better], "rejected": answers[worse]}


def _all_answers(record: dict) -> dict:
    return {"prompt": _prompt(record), "responses": _answers(record), "scores": [0, 0, 0, 0]}


def _bad_share(record: dict, aspect: str) -> float:
    """Share of the first answer's characters that are marked with errors of the aspect."""
    errors = [e for e in record["feedback"]["errors"] if e["error type"] in ASPECTS[aspect]]
    marked = {place for error in errors for place in range(error["start"], error["end"])}
    return len(marked) / max(1, len(record["prediction 1"]))


def _labels(records: list[dict], aspect: str) -> Iterator[dict]:
    middle = median(_bad_share(record, aspect) for record in records)
    for record in records:
        good = _bad_share(record, aspect) <= middle
        yield {"prompt": _prompt(record), "completion": _answers(record)[0], "label": good}


def _figures(candidates: Path, heldout: list[dict]) -> dict[str, float]:
    rewards = {}
    with open(candidates, encoding="utf-8", newline="\n") as lines:
        for line in map(json.loads, lines):
            for candidate in line["candidates"]:
                rewards[line["prompt"][-1]["content"], candidate["text"]] = candidate["score"]

    def given(record: dict) -> list[float | None]:
        return [rewards.get((_prompt(record), answer)) for answer in _answers(record)]

    agrees = []
    for record in heldout:
        found = given(record)
        for (i, j), verdict in zip(COMPARED, record["preference"], strict=True):
            a, b = found[i], found[j]
            if verdict and a is not None and b is not None:
                agrees.append((a > b) == (verdict == 1))
    figures = {"as people did": fmean(agrees)}
    scored = [(record, first) for record in heldout if (first := given(record)[0]) is not None]
    for aspect in ASPECTS:
        middle = median(_bad_share(record, aspect) for record, _ in scored)
        good = [first for record, first in scored if _bad_share(record, aspect) <= middle]
        bad = [first for record, first in scored if _bad_share(record, aspect) > middle]
        figures[aspect] = fmean(0.5 if g == b else float(g > b) for g in good for b in bad)
    return figures


def _write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
