"""Three rounds of DPO on a policy's own answers; on stories, judged by the exact judge."""

from __future__ import annotations

from pathlib import Path

from loops.measure import answer, prefopt
from loops.stories import MODEL, write_stories

ASKED = ["generate.n=4", "generate.max_new_tokens=80", "generate.unfinished=keep", "limit=200"]
ROUNDS = 3


def sft(folder: Path, seed: int) -> Path:
    """A model that has learnt to end a story: SFT on the best response of each prompt. The model's folder."""
    stories = write_stories(folder / "data")
    out = folder / "sft"
    words = ["loss=sft", f"model.path={MODEL}", f"data.train=[{{path: {stories.train}}}]", f"train.seed={seed}"]
    words += ["optim.lr=1e-3", "train.epochs=2", "train.batch_size=32", "data.max_length=192", "train.eval_every=never"]
    prefopt(["train", *words, "launch.device=cpu", "launch.num_processes=1", f"dir={out}"], folder / "sft.log")
    return out / "model"


def run(folder: Path, seed: int) -> dict[str, dict[str, float]]:
    """Of each round's policy the exact judge's mean on held-out prompts."""
    start = sft(folder, seed)
    stories = write_stories(folder / "data")
    loop = folder / "loop"
    prefopt(
        [
            "rounds",
            "recipe=iterative_dpo",
            f"rounds={ROUNDS}",
            f"dir={loop}",
            f"seed={seed}",
            f"inputs.policy={start}",
            f"inputs.prompts={stories.train}",
            f"inputs.heldout={stories.heldout}",
            "inputs.judge=[score=python, 'score.function=happiness:happiness']",
            "inputs.sampling=[generate=sample, generate.n=8, generate.max_new_tokens=80, generate.unfinished=keep,"
            " limit=400]",
            "inputs.training=[loss.beta=0.1, optim.lr=2e-4, train.epochs=2, train.batch_size=32, data.max_length=192,"
            " launch.device=cpu, launch.num_processes=1, train.eval_every=never]",
        ],
        folder / "loop.log",
    )
    models = {"SFT": start, **{f"round {n}": loop / f"round-{n}/train/model" for n in range(1, ROUNDS + 1)}}
    asked = [f"prompts={stories.heldout}", *ASKED]
    found = {
        name: answer(str(model), folder / f"answers-{name.replace(' ', '-')}", asked, "happiness:happiness", None, seed)
        for name, model in models.items()
    }
    return {name: {"happy less sad words": answers.mean} for name, answers in found.items()}
