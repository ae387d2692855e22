"""SFT, reward model, RSO pairs and tournaments, a policy by each loss; on stories."""

from __future__ import annotations

from pathlib import Path

from loops.measure import answer, prefopt, win_rate
from loops.stories import MODEL, write_stories

COMMON = "[train.batch_size=32, data.max_length=192, launch.device=cpu, launch.num_processes=1, train.eval_every=never]"
SAMPLING = (
    "[generate=sample, generate.n=16, generate.temperature=0.7, generate.top_k=40, generate.max_new_tokens=80,"
    " generate.unfinished=keep, limit=400]"
)
ASKED = ["generate.n=4", "generate.max_new_tokens=80", "generate.unfinished=keep", "limit=200"]
POLICIES = ("rso_sigmoid", "rso_hinge", "slic_hf", "slic_hf_direct", "dpo_direct")


def run(folder: Path, seed: int) -> dict[str, dict[str, float]]:
    """Of each policy the exact judge's mean, and how often the ranker prefers its answers to those of SFT."""
    stories = write_stories(folder / "data")
    loop = folder / "loop"
    prefopt(
        [
            "rounds",
            "recipe=rso_loop",
            f"dir={loop}",
            f"seed={seed}",
            f"inputs.policy={MODEL}",
            f"inputs.pairs={stories.train}",
            f"inputs.heldout={stories.heldout}",
            "inputs.sft_training=[optim.lr=1e-3, train.epochs=2]",
            "inputs.reward_training=[optim.lr=1e-3]",
            "inputs.training=[optim.lr=2e-4, train.epochs=10, train.max_steps=50]",
            f"inputs.sampling={SAMPLING}",
            f"inputs.common={COMMON}",
        ],
        folder / "loop.log",
    )
    ranker = str(loop / "before/reward/model")
    models = {"SFT": loop / "before/sft/model", **{name: loop / f"round-1/{name}/model" for name in POLICIES}}
    found = {}
    asked = [f"prompts={stories.heldout}", *ASKED]
    for name, model in models.items():
        found[name] = answer(str(model), folder / f"answers-{name}", asked, "happiness:happiness", ranker, seed)
    sft = found["SFT"]
    return {
        name: {
            "happy less sad words": answers.mean,
            "ranker prefers it to SFT": win_rate(answers.ranked, sft.ranked),
            "judge prefers it to SFT": win_rate(answers.judged, sft.judged),
        }
        for name, answers in found.items()
    }
