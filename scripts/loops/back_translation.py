"""Instruction back-translation on texts without questions; on the demo, where what is right is known exactly."""

from __future__ import annotations

import json
from pathlib import Path

from loops.measure import answer, prefopt

ROUNDS = 2
JUDGE = "prefopt.demo.manners"
NUM_SEED_ROWS = 48
ASKED = ["prompts=demo://manners/heldout.jsonl", "generate.n=16", "generate.max_new_tokens=24"]


def run(folder: Path, seed: int) -> dict[str, dict[str, float]]:
    """The exact judge's mean on held-out questions: before, after SFT on the few seed rows, and after each round."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds, texts = write_rows(folder)
    loop = folder / "loop"
    prefopt(
        [
            "rounds",
            "recipe=back_translation",
            f"rounds={ROUNDS}",
            f"dir={loop}",
            f"seed={seed}",
            f"inputs.seed_rows={seeds}",
            f"inputs.texts={texts}",
            "inputs.backward_training=[optim.lr=1e-3, train.epochs=40]",
        ],
        folder / "loop.log",
    )
    out = folder / "seed-only"
    words = ["loss=sft", "model.path=demo://manners/base", f"data.train=[{{path: {seeds}}}]", f"train.seed={seed}"]
    words += ["optim.lr=3e-4", "train.batch_size=32", "data.max_length=64", "train.epochs=4", "train.eval_every=never"]
    prefopt(["train", *words, "launch.device=cpu", "launch.num_processes=1", f"dir={out}"], folder / "seed-only.log")
    models = {"base": "demo://manners/base", "SFT on the seed rows": str(out / "model")}
    models |= {f"round {n}": str(loop / f"round-{n}/train/model") for n in range(1, ROUNDS + 1)}
    found = {}
    for name, model in models.items():
        place = folder / f"answers-{name.replace(' ', '-')}"
        judged = answer(model, place, ASKED, f"{JUDGE}:utility", None, seed)
        right = answer(model, place.with_name(f"{place.name}-right"), ASKED, f"{JUDGE}:rightness", None, seed)
        found[name] = {"utility (-1 to 3)": judged.mean, "right": right.mean}
    return found


def write_rows(folder: Path) -> tuple[Path, Path]:
    """A few good answers with their questions, and the texts of other good answers without them."""
    from prefopt.demo import manners

    rows = manners.train_rows()
    good = [row for row in rows if manners.utility(row["prompt"], row["chosen"]) == 3.0]
    seeds, texts = folder / "seeds.jsonl", folder / "texts.jsonl"
    first, rest = good[:NUM_SEED_ROWS], list(dict.fromkeys(row["chosen"] for row in rows[len(rows) // 2 :]))
    seeds.write_text(
        "".join(json.dumps({"prompt": r["prompt"], "completion": r["chosen"]}) + "\n" for r in first), encoding="utf-8"
    )
    texts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in rest), encoding="utf-8")
    return seeds, texts
