"""One step from models on disk, under FSDP2 on each of the ranks or on one process.

torchrun --nproc_per_node 2 tests/train/fsdp_ranks.py FOLDER MODEL ...     (a folder of FOLDER each)
    FOLDER/RANK.json: of each model and kind (lm, lora, scalar) how many weights this rank read itself, and the metrics.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from ragged import one_step, settings

from prefopt.lifetime import leave
from prefopt.model.load import load_policy, load_reward_policy
from prefopt.settings import LoraSettings, RunSettings
from prefopt.train.engine import Engine

KINDS = {"lm": "orpo", "lora": "orpo", "scalar": "reward_bt"}


def steps(engine: Engine, run: RunSettings, folder: Path, models: list[str]) -> dict[str, Any]:
    """What the first step finds."""
    found = {}
    for model in models:
        for kind, loss in KINDS.items():
            run.model.path = str(folder / model)
            run.model.lora = LoraSettings(r=2) if kind == "lora" else None
            torch.manual_seed(3)
            load = load_reward_policy if kind == "scalar" else load_policy
            policy = load(run.model, longest=64, reads=engine.kind.reads_weights)
            was_read = sum(not p.is_meta for p in policy.parameters())
            engine.wrap(policy)
            metrics = one_step(engine, loss, "four")["metrics"]
            found[f"{model} {kind}"] = {"read": was_read, **metrics}
    return found


if __name__ == "__main__":
    os.environ["PREFOPT_WORLD_SIZE"] = os.environ["WORLD_SIZE"]
    run = settings("fsdp")
    engine = Engine(run)
    place = Path(sys.argv[1])
    (place / f"{engine.rank}.json").write_text(json.dumps(steps(engine, run, place, sys.argv[2:])))
    engine.close()
    leave(0)
