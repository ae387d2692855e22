"""Three updates of stochastically rounded weights: torchrun --nproc_per_node 2 FILE FOLDER writes FOLDER/RANK.pt."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from ragged import make_engine, one_step, settings

from prefopt.lifetime import leave


def main(folder: str) -> None:
    os.environ["PREFOPT_WORLD_SIZE"] = os.environ["WORLD_SIZE"]
    run = settings("ddp", dtype="bfloat16")
    run.optim.bfloat16_weights = "stochastic"
    engine = make_engine(run)
    torch.manual_seed(engine.rank)  # the ranks' own streams differ
    for _ in range(3):
        engine.set_lr(1e-4)
        one_step(engine, "orpo", "four")
    torch.save({n: p.detach() for n, p in engine.policy.named_parameters()}, Path(folder) / f"{engine.rank}.pt")
    engine.close()


if __name__ == "__main__":
    main(sys.argv[1])
    leave(0)
