"""RRHF with four ways to make candidates, two iterations each; on stories, judged by the exact judge."""

from __future__ import annotations

from pathlib import Path

from loops.iterative import ASKED, sft
from loops.measure import answer, prefopt
from loops.stories import write_stories

LIMITS = "generate.max_new_tokens=80, generate.unfinished=keep, limit=400"
BEAMS = "generate=diverse_beam, generate.given=drop"
WAYS = {
    "beams": f"[{BEAMS}, generate.groups=1, generate.beams=4, generate.diversity_penalty=0, {LIMITS}]",
    "diverse beams": f"[{BEAMS}, {LIMITS}]",
    "samples": f"[generate=sample, generate.n=4, {LIMITS}]",
    "samples and given": f"[generate=sample, generate.n=4, generate.given=keep, {LIMITS}]",
}


def run(folder: Path, seed: int) -> dict[str, dict[str, float]]:
    """Of each way, and each of its iterations, the exact judge's mean on held-out prompts."""
    start = sft(folder, seed)
    stories = write_stories(folder / "data")
    asked = [f"prompts={stories.heldout}", *ASKED]
    found = {
        "SFT": {"start": answer(str(start), folder / "answers-sft", asked, "happiness:happiness", None, seed).mean}
    }
    for name, sampling in WAYS.items():
        place = name.replace(" ", "-")
        prefopt(
            [
                "rounds",
                "recipe=rrhf_two_iterations",
                f"dir={folder / place}",
                f"seed={seed}",
                f"inputs.policy={start}",
                f"inputs.prompts={stories.train}",
                f"inputs.heldout={stories.heldout}",
                "inputs.judge=[score=python, 'score.function=happiness:happiness']",
                f"inputs.sampling={sampling}",
                "inputs.training=[optim.lr=2e-4, train.epochs=2, train.batch_size=32, data.max_length=192,"
                " launch.device=cpu, launch.num_processes=1, train.eval_every=never]",
            ],
            folder / f"{place}.log",
        )
        found[name] = {}
        for n in (1, 2):
            model = folder / place / f"round-{n}/train/model"
            answers = answer(str(model), folder / f"answers-{place}-{n}", asked, "happiness:happiness", None, seed)
            found[name][f"iteration {n}"] = answers.mean
    return found
