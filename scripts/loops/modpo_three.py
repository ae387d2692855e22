"""MODPO with three objectives of people: naturalness orders the pairs, engagingness and groundedness are margins.

shared/data/topical_chat: six answers to each of 47 dialogues, each rated for several aspects. A model of this size
writes no dialogue, so that what is measured is its implicit reward on the dialogues that were held out: how often it
orders two answers as an aspect's ratings do.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from loops.measure import prefopt
from loops.stories import MODEL, SHARED

ASPECTS = {"naturalness": (1, 3), "engagingness": (1, 3), "groundedness": (0, 1)}
"""The scale of each; the first orders the pairs."""
WEIGHTS = ((0.8, 0.1, 0.1), (0.34, 0.33, 0.33), (0.2, 0.7, 0.1), (0.2, 0.1, 0.7))
NUM_HELDOUT = 15
LONGEST = 350
"""Characters of a dialogue that are kept, its end: 512 positions."""


def run(folder: Path, seed: int) -> dict[str, dict[str, float]]:
    """Of each weighting the agreement of the implicit reward with each aspect, on held-out dialogues."""
    folder.mkdir(parents=True, exist_ok=True)
    train, heldout = write_rows(folder, seed)
    found = {}
    for weights in WEIGHTS:
        name = " / ".join(f"{w:g}" for w in weights)
        place = "-".join(f"{w:g}" for w in weights)
        out = folder / place
        prefopt(
            [
                "train",
                "loss=modpo",
                f"loss.weights=[{','.join(map(str, weights))}]",
                "data.margins=[{kind: column, name: engagingness}, {kind: column, name: groundedness}]",
                f"data.train=[{{path: {train}}}]",
                "data.pairs=all",
                "data.max_length=512",
                "data.max_drop_fraction=0.5",
                f"model.path={MODEL}",
                f"train.seed={seed}",
                "train.epochs=4",
                "train.batch_size=32",
                "train.eval_every=never",
                "optim.lr=1e-3",
                "launch.device=cpu",
                "launch.num_processes=1",
                f"dir={out}",
            ],
            folder / f"{place}.log",
        )
        scored = folder / f"scored-{place}"
        words = [f"prompts={heldout}", "generate=given", "score=implicit", f"score.model={out / 'model'}"]
        prefopt(["pairs", *words, f"reference={MODEL}", "select=keep_all", f"out={scored}"], folder / f"{place}.log")
        found[name] = agreement(scored / "candidates.jsonl", heldout)
    return found


def write_rows(folder: Path, seed: int) -> tuple[Path, Path]:
    """Dialogues to train on and dialogues held out, which the seed chooses."""
    import random

    with gzip.open(SHARED / "data" / "topical_chat" / "train.json.gz", "rt", encoding="utf-8") as file:
        records = json.load(file)
    dialogues: dict[str, list[dict]] = {}
    for record in records:
        dialogues.setdefault(record["source"], []).append(record)
    rows = [_row(source, answers) for source, answers in dialogues.items()]
    random.Random(seed).shuffle(rows)
    paths = folder / "train.jsonl", folder / "heldout.jsonl"
    for path, part in zip(paths, (rows[NUM_HELDOUT:], rows[:NUM_HELDOUT]), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    return paths


def _row(source: str, answers: list[dict]) -> dict[str, object]:
    def rated(aspect: str) -> list[float]:
        low, high = ASPECTS[aspect]
        return [(answer["scores"][aspect] - low) / (high - low) for answer in answers]

    first, *others = ASPECTS
    return {
        "prompt": source.strip()[-LONGEST:] + "\n",
        "responses": [answer["system_output"].strip() for answer in answers],
        "scores": rated(first),
        **{aspect: rated(aspect) for aspect in others},
    }


def agreement(candidates: Path, heldout: Path) -> dict[str, float]:
    """Of two answers to a dialogue that an aspect rates differently, how often the reward orders them so."""
    rewards = {}
    for line in _lines(candidates):
        for candidate in line["candidates"]:
            rewards[line["prompt"][-1]["content"], candidate["text"]] = candidate["score"]
    right: dict[str, list[bool]] = {aspect: [] for aspect in ASPECTS}
    for row in _lines(heldout):
        columns = {aspect: row["scores" if n == 0 else aspect] for n, aspect in enumerate(ASPECTS)}
        given = [rewards.get((row["prompt"], response)) for response in row["responses"]]
        for aspect, ratings in columns.items():
            for i, j in combinations(range(len(given)), 2):
                if given[i] is not None and given[j] is not None and ratings[i] != ratings[j]:
                    right[aspect].append((given[i] > given[j]) == (ratings[i] > ratings[j]))
    return {aspect: sum(found) / len(found) for aspect, found in right.items()}


def _lines(path: Path) -> Iterator[dict]:
    with open(path, encoding="utf-8", newline="\n") as lines:
        yield from map(json.loads, lines)
