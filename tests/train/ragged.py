"""Ragged examples, and one optimiser step on them: what the invariance matrix compares. Also the two-rank worker.

torchrun --nproc_per_node 2 tests/train/ragged.py OUT.pt ENGINE       ENGINE: ddp, zero1, zero2, zero3
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prefopt.batch import Encoded
from prefopt.data.plan import Cut, cut
from prefopt.losses import make_loss, names
from prefopt.model.load import load_policy
from prefopt.model.policy import Policy
from prefopt.settings import DeepSpeedSettings, LoraSettings, RunSettings
from prefopt.train.engine import Engine
from prefopt.train.rows import Rows
from prefopt.train.step import train_step

MODEL = Path(__file__).resolve().parents[1] / "oracles" / "tiny_llama" / "policy"
LOSSES: dict[str, dict[str, Any]] = {name: {"name": name} for name in names()} | {
    "orpo_sequence": {"name": "orpo", "lam": 0.5, "nll_over": "sequence"},
    "sft_sequence_mean": {"name": "sft", "reduction": "sequence_mean"},
}
"""Every method of prefopt/losses, and settings that change the units of one."""
CUTS = ("one", "four", "alone")
"""Everything in one micro-batch per rank, four of nearly equal cost, every example alone (unpacked)."""


class RaggedSet:
    """Thirteen examples with 1 to 4 responses each, of very unequal lengths; the shape of an encoded set."""

    name = "ragged"

    def __init__(self) -> None:
        random = np.random.Generator(np.random.Philox(7))

        def tokens(low: int, high: int) -> list[int]:
            return random.integers(3, 97, random.integers(low, high)).tolist()

        self.rows = []
        for index in range(13):
            responses = [[*tokens(0, 24), 2] for _ in range(1 + index % 4)]
            pairs = [(w, l) for w in range(len(responses)) for l in range(w + 1, len(responses))]  # noqa: E741
            self.rows.append(Encoded(f"row-{index}", index, [1, *tokens(0, 30)], responses, pairs, 0))
        self.response_lengths = np.array([len(response) for r in self.rows for response in r.responses])
        self.response_offsets = np.cumsum([0, *(len(r.responses) for r in self.rows)])
        self.prompt_lengths = np.array([len(r.prompt) for r in self.rows])
        self.num_pairs = np.array([len(r.pairs) for r in self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Encoded:
        return self.rows[place]


def settings(engine: str, layout: str = "shared", lora: bool = False) -> RunSettings:
    """A run on the tiny model with learning rate 0, so that every step starts from the same weights."""
    run = RunSettings()
    run.launch.device = "cpu"
    run.model.path = str(MODEL)
    run.model.layout = layout
    run.model.lora = LoraSettings(r=4) if lora else None
    run.optim.lr = 0.0
    if engine.startswith("zero"):
        run.deepspeed = DeepSpeedSettings(config={"zero_optimization": {"stage": int(engine[-1])}})
    return run


def make_engine(run: RunSettings) -> Engine:
    engine = Engine(run)
    policy = load_policy(run.model, longest=64)
    if run.model.lora is not None:
        set_adapters(policy, sharded=engine.zero_stage == 3)
    engine.wrap(policy)
    return engine


def set_adapters(policy: Policy, sharded: bool) -> None:
    """The same adapters under every engine. (B starts at zero, where half of the gradient vanishes.)"""
    random = torch.Generator().manual_seed(1)
    for parameter in [p for n, p in policy.named_parameters() if "lora_" in n]:
        if sharded:
            import deepspeed

            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                torch.nn.init.normal_(parameter, std=0.1, generator=random)
        else:
            torch.nn.init.normal_(parameter, std=0.1, generator=random)


def deal(rows: Rows, how: str, num_ranks: int) -> Cut:
    """One of `CUTS`."""
    places = np.arange(len(rows))
    if how == "alone":
        per_rank = -(-len(rows) // num_ranks)
        shares = [[(int(p),) for p in places[rank::num_ranks]] for rank in range(num_ranks)]
        return Cut(tuple(tuple(share + [()] * (per_rank - len(share))) for share in shares))
    wanted = {"one": 1, "four": 4}[how]
    total = int(rows.costs.sum())
    dealt = (cut(places, rows.costs, num_ranks, tokens) for tokens in range(total, 0, -1))
    return next(d for d in dealt if d.num_micro_batches == wanted)


def one_step(engine: Engine, loss_name: str, how: str) -> dict[str, Any]:
    """Loss, gradient norm, metrics and the whole gradient of one optimiser step over all ragged rows."""
    loss = make_loss(LOSSES[loss_name])
    data = RaggedSet()
    rows = Rows(data, loss.needs, engine.policy.shares_prompts)  # type: ignore[arg-type]
    if "reference" in loss.needs:
        rows.set_reference(-np.linspace(5.0, 90.0, rows.num_responses))
    dealt = deal(rows, how, engine.world_size)
    gradient: dict[str, torch.Tensor] = {}
    step = engine.step

    def step_and_keep_gradient() -> float:
        for name, parameter in engine.policy.named_parameters():
            if parameter.requires_grad:
                gradient[name] = _full_gradient(engine, parameter)
        return step()

    engine.step = step_and_keep_gradient  # type: ignore[method-assign]
    try:
        result = train_step(engine, loss, rows.micro_batches(dealt, engine.rank), step=0)
    finally:
        engine.step = step  # type: ignore[method-assign]
    return {
        "num_micro_batches": dealt.num_micro_batches,
        "metrics": {k: v for k, v in result.items() if k not in ("units", "stop", "tokens")},
        "units": {str(k): v for k, v in result["units"].items()},
        "gradient": gradient,
    }


def _full_gradient(engine: Engine, parameter: torch.nn.Parameter) -> torch.Tensor:
    if engine.zero_stage is None:
        assert parameter.grad is not None
        return parameter.grad.detach().clone()
    from deepspeed.utils import safe_get_full_grad

    return safe_get_full_grad(parameter).detach().clone().float()


def main(out: str, engine_name: str) -> None:
    os.environ["PREFOPT_WORLD_SIZE"] = os.environ["WORLD_SIZE"]
    lora = engine_name.endswith("_lora")
    engine = make_engine(settings(engine_name.removesuffix("_lora"), lora=lora))
    results = {(loss, how): one_step(engine, loss, how) for loss in LOSSES for how in CUTS}
    if engine.is_main:
        torch.save({"in_force": engine.in_force, "results": results}, out)
    engine.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
