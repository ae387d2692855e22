"""DPO and SimPO on the same people's pairs: does the reward rank as the likelihood does, and does that follow length?

The analysis of SimPO's figure 4 (arXiv 2405.14734) with `prefopt eval`. shared/data/hh_harmless, rows of one turn;
stories260K, first SFT on the chosen responses; both methods from there, as many steps of as many pairs.
"""

from __future__ import annotations

import json
from pathlib import Path

from loops.measure import prefopt
from loops.modpo_length import write_rows
from loops.stories import MODEL

METHODS = {"dpo": ["loss.beta=0.1"], "simpo": ["loss.beta=2.0", "loss.gamma_beta_ratio=0.5"]}
SHOWN = {
    "rewards/accuracy": "reward accuracy",
    "mean_logps/accuracy": "likelihood accuracy",
    "mean_logps/agreement": "both rank alike",
    "mean_logps/length_spearman/both": "length correlation",
}


def run(folder: Path, seed: int) -> dict[str, dict[str, float]]:
    """Of each method the figures of `SHOWN`, the seconds of training and the peak of memory in MiB."""
    folder.mkdir(parents=True, exist_ok=True)
    train, heldout = write_rows(folder, seed)
    common = ["train.batch_size=32", f"train.seed={seed}", "launch.device=cpu", "launch.num_processes=1"]
    common += [f"data.train=[{{path: {train}}}]", f"data.eval={{heldout: {{path: {heldout}}}}}", "data.max_length=512"]
    common += ["data.max_drop_fraction=0.5", "train.eval_every=never"]
    start = folder / "sft"
    sft = ["loss=sft", f"model.path={MODEL}", "optim.lr=1e-3", "train.epochs=2", f"dir={start}"]
    prefopt(["train", *sft, *common], folder / "sft.log")
    found = {}
    for method, settings in METHODS.items():
        out = folder / method
        words = [f"loss={method}", *settings, f"model.path={start / 'model'}", "optim.lr=3e-4", "train.epochs=2"]
        prefopt(["train", *words, *common, f"dir={out}"], folder / f"{method}.log")
        prefopt(["eval", f"run={out}", f"out={folder / 'scored' / method}", "device=cpu"], folder / f"{method}.log")
        looked = folder / "looked" / method
        words = ["measure=likelihood", f"measure.rows={folder / 'scored' / method}", f"measure.runs=[{out}]"]
        prefopt(["eval", *words, f"out={looked}"], folder / f"{method}.log")
        figures = json.loads((looked / "figures.json").read_text())["figures"]
        found[method] = {shown: figures[f"heldout/{name}"]["value"] for name, shown in SHOWN.items()}
        found[method] |= _cost(out)
    return found


def _cost(run_dir: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().split("\n") if line]
    seconds = json.loads((run_dir / "result.json").read_text())["seconds"]
    return {"seconds": seconds, "MiB": max(line.get("peak_memory_bytes", 0) for line in lines) / 2**20}
