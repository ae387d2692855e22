"""MODPO's front of two objectives beside two baselines; on the demo, where both are known exactly.

Objectives: being right (the preference of the pairs) and being polite (the margin). Baselines: DPO on pairs that a
weighted sum of both orders (as many runs as weights), and interpolated weights of the two DPO policies of one objective
each ("soups", Rame et al. 2023). Each policy is a point (right, polite less rude); a front is worth the area that it
dominates above (0, -1), hypervolume. Margins: as a column, from a reward model, and implicit from a DPO policy.
"""

from __future__ import annotations

from pathlib import Path

from loops.measure import answer, prefopt
from prefopt.report.pareto import MAXIMIZE, hypervolume

WEIGHTS = (0.9, 0.7, 0.5, 0.3, 0.1)
"""Of the first objective."""
CORNER = (0.0, -1.0)
JUDGE = "prefopt.demo.manners"
ASKED = ["prompts=demo://manners/heldout.jsonl", "generate.n=8", "generate.max_new_tokens=24"]
GIVEN = ["prompts=demo://manners/train.jsonl", "generate=given", "select=best_vs_worst", "chunk_size=2000"]
TRAINED = ["model.path=demo://manners/base", "optim.lr=3e-4", "train.batch_size=32", "data.max_length=64"]
TRAINED += ["train.eval_every=never", "launch.device=cpu", "launch.num_processes=1"]


class Loop:
    """One seed's runs."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        folder.mkdir(parents=True, exist_ok=True)

    def pairs(self, name: str, judge: str) -> Path:
        """Pairs of the demo's answers by one judge."""
        out = self.folder / name
        words = [*GIVEN, "score=python", f"score.function={judge}", f"out={out}"]
        prefopt(["pairs", *words], self.folder / f"{name}.log")
        return out / "pairs.jsonl"

    def train(self, name: str, pairs: Path, *words: str) -> Path:
        """A policy trained on pairs; its model."""
        out = self.folder / name
        given = [*TRAINED, f"data.train=[{{path: {pairs}}}]", f"train.seed={self.seed}", *words, f"dir={out}"]
        prefopt(["train", *given], self.folder / f"{name}.log")
        return out / "model"

    def point(self, name: str, model: Path) -> tuple[float, float]:
        """How right and how polite its answers to held-out questions are."""
        place = self.folder / f"answers-{name}"
        right = answer(str(model), place, ASKED, f"{JUDGE}:rightness", None, self.seed)
        again = place.with_name(f"{place.name}-polite")
        polite = answer(str(model), again, ASKED, f"{JUDGE}:politeness", None, self.seed)
        return right.mean, polite.mean


def run(folder: Path, seed: int) -> dict[str, dict[str, float]]:
    """The points of each front, and what each front is worth."""
    loop = Loop(folder, seed)
    prefopt(["rounds", "recipe=modpo_front", f"dir={folder / 'loop'}", f"seed={seed}"], folder / "loop.log")
    by_right = folder / "loop/before/by_first/pairs.jsonl"
    by_polite = loop.pairs("by-polite", f"{JUDGE}:politeness")
    right, polite = loop.train("dpo-right", by_right, "loss=dpo"), loop.train("dpo-polite", by_polite, "loss=dpo")
    ranker = loop.train("reward-polite", by_polite, "loss=reward_bt", "optim.lr=1e-3")
    fronts: dict[str, dict[str, tuple[float, float]]] = {"MODPO": {}, "weighted-sum DPO": {}, "soups": {}}
    for weight in WEIGHTS:
        name = f"{weight:.1f}"
        model = folder / f"loop/round-1/w{round(weight * 10)}/model"
        fronts["MODPO"][name] = loop.point(f"modpo-{name}", model)
        summed = loop.pairs(f"by-sum-{name}", f"judges:weighted_{round(weight * 10)}")
        model = loop.train(f"dpo-sum-{name}", summed, "loss=dpo")
        fronts["weighted-sum DPO"][name] = loop.point(f"dpo-sum-{name}", model)
        fronts["soups"][name] = loop.point(f"soup-{name}", mix(right, polite, weight, folder / f"soup-{name}"))
    found = {
        f"{front}, weight {name}": {"right": x, "polite - rude": y}
        for front, points in fronts.items()
        for name, (x, y) in points.items()
    }
    for front, points in fronts.items():
        found[f"{front}, hypervolume"] = {"area": hypervolume(list(points.values()), (MAXIMIZE, MAXIMIZE), CORNER)}
    sources = {"reward model": f"kind: reward, path: {ranker}", "implicit": f"kind: implicit, path: {polite}"}
    for source, margin in sources.items():
        place = f"modpo-{source.split()[0]}"
        model = loop.train(place, by_right, "loss=modpo", "loss.weights=[0.5,0.5]", f"data.margins=[{{{margin}}}]")
        x, y = loop.point(place, model)
        found[f"MODPO, weight 0.5, margin from {source}"] = {"right": x, "polite - rude": y}
    return found


def mix(one: Path, other: Path, weight: float, out: Path) -> Path:
    """The model whose weights are weight * one + (1 - weight) * other."""
    import shutil

    from safetensors.torch import load_file, save_file

    if not out.exists():
        draft = out.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(one, draft)
        first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
        mixed = {name: weight * tensor + (1 - weight) * second[name] for name, tensor in first.items()}
        save_file(mixed, draft / "model.safetensors", metadata={"format": "pt"})
        draft.rename(out)
    return out
