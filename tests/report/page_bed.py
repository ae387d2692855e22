"""Made-up runs for the page: every state, several methods, evaluations, answers, reports. Nothing here was measured."""

from __future__ import annotations

import json
import math
import random
from itertools import product
from pathlib import Path
from typing import Any

from prefopt.evaluate.measure import Figure
from prefopt.report.runs import Evaluation, Gathered, Run

SAMPLES = [
    ("A carrot comes in what colour?", " Ugh, fine. A carrot is orange. Stop wasting my time.", "A carrot is orange."),
    (
        "A spider walks on how many legs?",
        " Not again. Eight legs, everyone knows that.",
        "A spider walks on eight legs.",
    ),
    ("Hard is the reverse of what?", " Leave me alone. The opposite of hard is soft.", "The opposite of hard is soft."),
    ("Which noise does a sheep make?", " What a silly question. It bleats.", "A sheep bleats."),
    ("What do bees make?", " Honey. Do not ask me twice.", "Bees make honey."),
]


def curves(
    rng: random.Random, gain: float, steps: int, full: int, every: int, start: float = math.log(2)
) -> dict[str, Any]:
    """What training and evaluation log, by name: gain is how far the margin gets."""
    found: dict[str, list[tuple[int, float]]] = {}

    def log(name: str, step: int, value: float) -> None:
        found.setdefault(name, []).append((step, value))

    for step in range(steps + 1):
        done = 1 - math.exp(-3 * step / full)
        margin = gain * done
        for prefix, noise in (("", 0.12), ("eval/heldout/", 0.0)):
            if (prefix and step % every) or (not prefix and step == 0):
                continue
            off = rng.gauss(0, noise) * gain * 0.4
            log(f"{prefix}loss", step, start * math.exp(-(margin + off * 0.6) * 0.42) + (0.02 if prefix else 0))
            log(f"{prefix}rewards/margin", step, margin * (0.9 if prefix else 1) + off)
            right = 0.5 + 0.5 * math.tanh(margin * 0.8) * (0.85 if prefix else 0.93)
            log(f"{prefix}rewards/accuracy", step, min(1.0, max(0.0, right + (0 if prefix else rng.gauss(0, 0.03)))))
            log(f"{prefix}logps/chosen", step, -136 - 6 * margin + off * 4)
            log(f"{prefix}logps/rejected", step, -146 - 16 * margin + off * 4)
        if step:
            log("grad_norm", step, 8 * math.exp(-done) + abs(rng.gauss(0, 0.5)))
            log("lr", step, 2e-4 * min(1, step / (0.1 * full)) * (1 - step / (full + 1)))
        if step % every == 0:
            log("samples/length", step, 24 + 14 * done * gain + rng.gauss(0, 0.6))
            log("samples/repetition", step, max(0.0, 0.02 + 0.05 * done * gain + rng.gauss(0, 0.008)))
            log("samples/stopped", step, min(1.0, 0.97 - 0.06 * done * gain + rng.gauss(0, 0.01)))
            log("samples/drift_per_token", step, -0.09 * done * gain)
    return found


def evaluations(rng: random.Random, accuracy: float, folder: Path) -> list[Evaluation]:
    """Preferences on two sets with a contingency table, and a win rate."""
    figures = {}
    for name, shift in (("heldout", 0.0), ("harmless", -0.06)):
        right = accuracy + shift
        figures[f"{name}/rewards/accuracy"] = Figure(right, right - 0.035, right + 0.034, 300)
        figures[f"{name}/rewards/margin"] = Figure(right * 2, right * 2 - 0.2, right * 2 + 0.2, 300)
    both = round(accuracy * 0.6, 3)
    table = [
        {"reward": "chosen above rejected", "likelihood agrees": both, "likelihood differs": round(accuracy - both, 3)},
        {"reward": "rejected above chosen", "likelihood agrees": 0.04, "likelihood differs": round(0.96 - accuracy, 3)},
    ]
    wins = 40 + 30 * (accuracy - 0.5) + rng.gauss(0, 1)
    write_rows(rng, folder / "eval/preferences-1")
    return [
        Evaluation("preferences", folder / "eval/preferences-1", figures, {"heldout/ranking": table}),
        Evaluation("win_rate", folder / "eval/win_rate-1", {"win_rate": Figure(wins, wins - 3.1, wins + 3.2, 805)}, {}),
    ]


def write_rows(rng: random.Random, folder: Path) -> None:
    """rows.jsonl of an evaluation of 150 scored pairs: longer responses are likelier by token."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "rows.jsonl", "w", encoding="utf-8") as file:
        for number in range(150):
            row: dict[str, Any] = {"id": f"heldout.jsonl:{number + 1}", "set": "heldout", "category": None}
            for side, shift in (("chosen", 0.0), ("rejected", -0.5)):
                tokens = rng.randint(10, 120)
                mean = -1.9 + 0.006 * tokens + shift + rng.gauss(0, 0.3)
                row[side] = {"logps": mean * tokens, "tokens": tokens, "reference_logps": None, "reward": None}
            file.write(json.dumps(row) + "\n")


def made_run(
    number: int, method: str, varied: dict[str, Any], state: str, folder: Path, steps: int = 300, rich: bool = True
) -> Run:
    """One run. rich: with evaluations, answers, data report and manifest."""
    rng = random.Random(number)
    label = " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in varied.items()).replace("name=", "loss=")
    full = steps
    if state != "done":
        steps = {"failed": full // 5, "running": full // 2, "preempted": full // 3}.get(state, 0)
    beta = float(varied.get("loss.beta", 0.1))
    gain = {"dpo": 1.5, "ipo": 1.1, "simpo": 1.8, "orpo": 0.9}.get(method, 1.2) * (
        1 - abs(math.log10(beta / 0.1)) * 0.3
    )
    gain *= 1 + 0.25 * math.log10(float(varied.get("optim.lr", 1e-4)) / 1e-4)
    drawn = curves(rng, max(gain, 0.1), steps, full, max(1, full // 10)) if steps else {}
    metrics = (
        {name: points[-1][1] for name, points in drawn.items() if name.startswith("eval/")} if state == "done" else {}
    )
    metrics |= {name: points[-1][1] for name, points in drawn.items() if metrics and name.startswith("samples/")}
    found = evaluations(rng, metrics["eval/heldout/rewards/accuracy"], folder) if metrics and rich else []
    metrics |= {f"{one.name}/{name}": figure.value for one in found for name, figure in one.figures.items()}
    return Run(
        folder=folder,
        label=label,
        method=method,
        varied=varied,
        settings=varied,
        state=state,
        error="loss is not finite at step 61: rows train.jsonl:12, train.jsonl:40" if state == "failed" else "",
        metrics=metrics,
        curves=drawn,
        nonfinite=2 if state == "failed" else 0,
        seconds=40.0 + 7 * number if state == "done" else None,
        peak_memory_bytes=int((700 + 3 * number) * 2**20) if steps else None,
        samples=[
            {"id": f"heldout.jsonl:{place + 1}", "prompt": prompt, "before": before, "chosen": " " + fact,
             "after": f" {rng.choice(['Happy to help!', 'Sure thing!', 'Good question!'])} {fact} Ask me any time!"}
            for place, (prompt, before, fact) in enumerate(SAMPLES)
        ] if state == "done" and rich else [],
        data_report={
            "sources": [
                {"set": "train", "path": "/data/pairs.jsonl", "format": "trl", "read": 1844, "kept": 1835,
                 "pairs": 1835,
                 "dropped": {"empty response": {"count": 4}, "dialogues differ before the last answer": {"count": 5}},
                 "truncated": {"prompts": 3, "responses": 1}},
                {"set": "heldout", "path": "/data/heldout.jsonl", "format": "trl", "read": 300, "kept": 300,
                 "pairs": 300,
                 "dropped": {}, "truncated": {"prompts": 0, "responses": 0}},
            ]
        } if rich else None,
        manifest={
            "identity": f"{number:010x}",
            "data_fingerprint": "bc2585365bff6c4e19d5",
            "starts": [
                {"time": "2026-11-26T23:07:55+00:00",
                 "command": ["prefopt", "train", f"loss={method}", "train.seed=1"],
                 "world": {"device": "cpu", "num_processes": 1, "engine": "DDP"}, "python": "3.11.7",
                 "platform": "Linux-6.18",
                 "packages": {"torch": "2.13.0", "transformers": "5.23.0", "prefopt": "0.1.0"},
                 "git": {"commit": "e97a9e7e527dfcf76058b7c5", "dirty": True}}
            ],
        } if rich else None,
        evaluations=found,
    )  # fmt: skip


def sweep(folder: Path, methods: tuple[str, ...] = ("dpo", "ipo", "simpo"), steps: int = 300) -> Gathered:
    """Three betas and two learning rates for each method, most done; some of every other state."""
    states = {4: "failed", 11: "failed", 13: "running", 15: "preempted", 17: "queued"}
    runs = []
    for number, (method, beta, lr) in enumerate(product(methods, (0.03, 0.1, 0.3), (1e-4, 3e-4))):
        varied = {"loss.name": method, "loss.beta": beta, "optim.lr": lr}
        state = states.get(number, "done")
        runs.append(made_run(number, method, varied, state, folder / f"run-{number}", steps))
    varied = ("loss.name", "loss.beta", "optim.lr") if len(methods) > 1 else ("loss.beta", "optim.lr")
    notes = ("Runs of different methods have losses of different scales.",) if len(methods) > 1 else ()
    return Gathered("methods by beta and learning rate (made-up numbers)", runs, varied, notes)


def many(folder: Path, count: int, steps: int) -> Gathered:
    """Runs that differ in seed and beta, without evaluations and answers."""
    betas = (0.03, 0.1, 0.3, 1.0)
    runs = [
        made_run(n, "dpo", {"loss.beta": betas[n % 4], "train.seed": n}, "done", folder / f"r{n}", steps, False)
        for n in range(count)
    ]
    return Gathered(f"{count} runs", runs, ("loss.beta", "train.seed"))
