"""MODPO on people's judgements of harmlessness with the length of a response as its cost: five weights, one multirun.

shared/data/hh_harmless, rows of one turn; stories260K, first SFT on the chosen responses. The margin is minus the
response's tokens, as in the authors' summarisation with a length penalty. A policy is a point: how often its implicit
reward orders held-out pairs as people did, and how often it takes the shorter of the two. (A model of this size seldom
ends an answer to such a prompt, so that the length of its own answers says nothing.)
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import yaml

from loops.measure import prefopt
from loops.stories import MODEL, SHARED

WEIGHTS = (0.0, 0.003, 0.01, 0.03, 0.1)
"""Of a token, beside 1 for the preference; the authors' is 0.1, for a model of 7B."""
NUM_HELDOUT = 150
LONGEST = 900
"""Characters of a row: 512 positions."""
TURN, ANSWER = "\n\nHuman:", "\n\nAssistant:"


def run(folder: Path, seed: int) -> dict[str, dict[str, float]]:
    """Of each weight how the implicit reward orders the held-out pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    train, heldout = write_rows(folder, seed)
    common = ["train.batch_size=32", "train.epochs=2", f"train.seed={seed}", "launch.device=cpu"]
    common += [f"data.train=[{{path: {train}}}]", f"data.eval={{heldout: {{path: {heldout}}}}}", "data.max_length=512"]
    common += ["data.max_drop_fraction=0.5", "launch.num_processes=1"]
    start = folder / "sft"
    sft = ["loss=sft", f"model.path={MODEL}", "optim.lr=1e-3", f"dir={start}"]
    prefopt(["train", *sft, *common], folder / "sft.log")
    choices = ",".join(f"[1,{weight:g}]" for weight in WEIGHTS)
    modpo = ["loss=modpo", f"loss.weights={choices}", "loss.beta=0.1", "data.margins=[{kind: length}]", "optim.lr=3e-4"]
    prefopt(["train", "-m", *modpo, f"model.path={start / 'model'}", *common], folder / "sweep.log", cwd=folder)
    found = {}
    for run_yaml in (folder / "runs").glob("*/run.yaml"):
        weight = yaml.safe_load(run_yaml.read_text())["loss"]["weights"][1]
        found[weight] = order(run_yaml.parent / "model", start / "model", folder / f"scored-{weight:g}", heldout)
    return {f"1 / {weight:g}": found[weight] for weight in sorted(found)}


def write_rows(folder: Path, seed: int) -> tuple[Path, Path]:
    """Pairs to train on and pairs held out, which the seed chooses."""
    rows = []
    with gzip.open(SHARED / "data" / "hh_harmless" / "train.jsonl.gz", "rt", encoding="utf-8", newline="\n") as lines:
        for line in lines:
            chosen, rejected = (json.loads(line)[key] for key in ("chosen", "rejected"))
            prompt, _, kept = chosen.partition(ANSWER)
            other, _, refused = rejected.partition(ANSWER)
            single = prompt == other and ANSWER not in kept + refused and TURN not in kept + refused
            if single and kept.strip() and refused.strip() and max(len(chosen), len(rejected)) < LONGEST:
                rows.append({"prompt": prompt + ANSWER, "chosen": kept, "rejected": refused})
    random.Random(seed).shuffle(rows)
    paths = folder / "train.jsonl", folder / "heldout.jsonl"
    for path, part in zip(paths, (rows[NUM_HELDOUT:], rows[:NUM_HELDOUT]), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    return paths


def order(policy: Path, reference: Path, out: Path, heldout: Path) -> dict[str, float]:
    """How often the implicit reward orders a held-out pair as people did, and takes the shorter response."""
    words = [
        f"prompts={heldout}",
        "generate=given",
        "score=implicit",
        f"score.model={policy}",
        f"reference={reference}",
    ]
    prefopt(["pairs", *words, "select=keep_all", f"out={out}"], out.with_suffix(".log"))
    scores = {}
    for row in _rows(out / "candidates.jsonl"):
        for candidate in row["candidates"]:
            scores[row["prompt"][-1]["content"], candidate["text"]] = candidate["score"]
    people, shorter = [], []
    for row in _rows(heldout):
        chosen, rejected = (row[key] for key in ("chosen", "rejected"))
        above = scores[row["prompt"], chosen] > scores[row["prompt"], rejected]
        people.append(above)
        if len(chosen) != len(rejected):
            shorter.append(above == (len(chosen) < len(rejected)))
    return {"as people did": fmean(people), "the shorter": fmean(shorter)}


def _rows(path: Path) -> Iterator[dict]:
    with open(path, encoding="utf-8", newline="\n") as lines:
        yield from map(json.loads, lines)
