"""Whole steps under a limit on this process's memory, set once everything is loaded: what test_memory runs.

python tests/train/limited.py RUN_DIR SPARE_MIB: the run in that folder, as `python -m prefopt.train` would.
python, or torchrun with two ranks, tests/train/limited.py OUT.pt LOSS TOKENS SPARE_MIB: steps, the limit on the last
rank. TOKENS may be auto. MODEL, LENGTH and ZERO in the environment: the model's folder, tokens of a
response, DeepSpeed's stage; FSDP: there for FSDP2.
"""

from __future__ import annotations

import os
import resource
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from prefopt.batch import Encoded
from prefopt.data.plan import Plan
from prefopt.engine_settings import DeepSpeedSettings, FsdpSettings
from prefopt.lifetime import leave
from prefopt.losses import make_loss
from prefopt.model.load import load_policy
from prefopt.settings import LoraSettings, RunSettings
from prefopt.train.budget import TokenBudget
from prefopt.train.engine import Engine
from prefopt.train.fitted import fitted_step
from prefopt.train.loader import Loader
from prefopt.train.measure import measure_budget
from prefopt.train.rows import Rows

NUM_STEPS = 2


def allow_more(mib: float) -> None:
    """From here on memory is refused beyond what is held and `mib`."""
    limit = psutil.Process().memory_info().vms + int(mib * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class LongSet:
    """Prompts of 60 tokens with two responses each."""

    name = fingerprint = "long"
    sources = ()

    def __init__(self, count: int, length: int) -> None:
        """length: tokens of a response."""
        random = np.random.Generator(np.random.Philox(3))

        def tokens(n: int) -> list[int]:
            return random.integers(3, 97, n).tolist()

        self.rows = [
            Encoded(f"row-{i}", i, tokens(60), [tokens(length), tokens(length)], [(0, 1)], 0, labels=[True, False])
            for i in range(count)
        ]
        self.prompt_lengths = np.full(count, 60)
        self.response_lengths = np.full(2 * count, length)
        self.response_offsets = 2 * np.arange(count + 1)
        self.num_pairs = np.ones(count, dtype=np.int64)
        self.prompt_hashes = np.arange(count)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Encoded:
        return self.rows[place]


def take_steps(out: str, loss_name: str, tokens: int | str, spare_mib: float) -> None:
    """Two steps; the weights, the losses and what was said go to `out`."""
    os.environ["PREFOPT_WORLD_SIZE"] = os.environ.get("WORLD_SIZE", "1")
    torch.set_num_threads(1)
    run = RunSettings()
    run.launch.device = "cpu"
    run.model.path = os.environ["MODEL"]
    run.model.lora = LoraSettings(r=4, dropout=0.1)
    run.optim.lr = 0.01
    if "ZERO" in os.environ:
        run.deepspeed = DeepSpeedSettings(config={"zero_optimization": {"stage": int(os.environ["ZERO"])}})
    if "FSDP" in os.environ:
        run.fsdp = FsdpSettings(strategy="full_shard")
    run.train.tokens_per_micro_batch = tokens
    engine = Engine(run)
    torch.manual_seed(0)
    engine.wrap(load_policy(run.model, longest=2060))
    torch.manual_seed(10 + engine.rank)
    loss = make_loss({"name": loss_name})
    rows = Rows(LongSet(48, int(os.environ["LENGTH"])), loss.needs, True)  # type: ignore[arg-type]
    for part in (rows, rows.baseline):
        if part is not None and "reference" in loss.needs:
            part.set_reference(np.full(part.num_responses, -500.0))
    said: list[str] = []
    plan = Plan(tuple(np.arange(24 * s, 24 * s + 24) for s in range(NUM_STEPS)), (NUM_STEPS,))
    results: list[dict[str, Any]] = []
    budget = TokenBudget(engine, Path(out).parent)
    if not budget.is_known:
        allow_more(spare_mib)
        budget.set(0, measure_budget(engine, loss, rows, plan, said.append))
    with Loader(plan, rows, engine) as loader:
        for step in range(NUM_STEPS):
            if step == 0:
                loader.take(step, budget.at(step))  # the thread's stack is there before the limit is
                if engine.rank == engine.world_size - 1 and tokens != "auto":
                    allow_more(spare_mib)
            results.append(fitted_step(engine, loss, loader, budget, step, False, said.append)[0])
    if engine.is_main:
        weights = {n: p.detach().clone() for n, p in engine.policy.named_parameters() if p.requires_grad}
        torch.save({"weights": weights, "said": said, "losses": [r["loss"] for r in results]}, out)
    engine.close()


def train_limited(run_dir: str, spare_mib: float) -> int:
    """The run in a folder; its exit code."""
    from prefopt.errors import UserError
    from prefopt.train.loop import Trainer

    if find_spec("deepspeed"):
        import deepspeed  # noqa: F401 - accelerate imports it when a model is saved; that is not what is limited here

    try:
        trainer = Trainer(Path(run_dir))
        allow_more(spare_mib)
        trainer.run()
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 3:
        leave(train_limited(sys.argv[1], float(sys.argv[2])))
    words = sys.argv[3]
    take_steps(sys.argv[1], sys.argv[2], words if words == "auto" else int(words), float(sys.argv[4]))
    leave(0)
