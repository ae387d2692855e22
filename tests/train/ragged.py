"""Ragged examples, and one optimiser step on them: what the invariance matrix compares. Also the two-rank worker.

torchrun --nproc_per_node 2 tests/train/ragged.py OUT.pt ENGINE HEAD
    ENGINE: ddp, zero1, zero2, zero3, zero2off, zero3off (offloaded), fsdp; any with _lora, _recomputed or both.
    HEAD: lm or scalar, which decides the methods.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from prefopt.batch import Encoded, MicroBatch
from prefopt.data.plan import Cut, cut
from prefopt.engine_settings import DeepSpeedSettings, FsdpSettings
from prefopt.lifetime import leave
from prefopt.losses import make_loss, names
from prefopt.model import logps
from prefopt.model.load import load_policy, load_reward_policy
from prefopt.model.policy import Policy
from prefopt.needs import LIVE
from prefopt.settings import LoraSettings, RunSettings
from prefopt.train.engine import Engine
from prefopt.train.live_reference import attach_live_reference
from prefopt.train.rows import Rows
from prefopt.train.step import train_step

MODEL = Path(__file__).resolve().parents[1] / "oracles" / "tiny_llama" / "policy"
REFERENCE = MODEL.with_name("reference")
LOSSES: dict[str, dict[str, Any]] = {name: {"name": name} for name in names()} | {
    "orpo_sequence": {"name": "orpo", "lam": 0.5, "nll_over": "sequence"},
    "sft_sequence_mean": {"name": "sft", "reduction": "sequence_mean"},
    "aot_unpaired": {"name": "aot", "variant": "unpaired", "label_smoothing": 0.1},
    "tdpo1": {"name": "tdpo", "variant": "tdpo1"},
    "sppo_soft": {"name": "sppo", "variant": "soft", "beta": 0.1},
    "slic_hf_y_ref": {"name": "slic_hf", "target": "y_ref"},
    "slic_list_kl": {"name": "slic", "calibration": "list_rank", "regulariser": "kl_finetuned_to_policy"},
    "slic_reward_kl": {"name": "slic", "calibration": "reward", "regulariser": "kl_policy_to_finetuned"},
    "rrhf_padded": {"name": "rrhf", "denominator": "padded", "sft": "mean_padded"},
    "ulma_continuous": {"name": "ulma", "positive": "token_mean", "negative": "continuous"},
    "reward_bt_all": {"name": "reward_bt", "center": 0.1, "margin": "column"},
    "mix_coupled": {"name": "mix", "parts": [{"name": "aot"}, {"name": "bco_pair"}, {"name": "orpo", "weight": 0.5}]},
}
"""Every method of prefopt/losses, and settings that change the units or the needs of one."""
FEW_LOGITS = 97 * 64
"""Logits that two ranks hold at once: the head runs in chunks of 64 tokens (16 for whole distributions), on one rank in
more of them than on the other."""
CUTS = ("one", "four", "alone")
"""Everything in one micro-batch per rank, four of nearly equal cost, every example alone (unpacked)."""


class RaggedSet:
    """Thirteen examples with 1 to 4 responses each, of very unequal lengths; the shape of an encoded set.

    needs: the loss's: only the columns it asks for are there.
    """

    name = "ragged"
    fingerprint = "ragged"
    sources = ((0, 13, 1.0),)

    def __init__(self, needs: frozenset[str]) -> None:
        random = np.random.Generator(np.random.Philox(7))

        def tokens(low: int, high: int) -> list[int]:
            return random.integers(3, 97, random.integers(low, high)).tolist()

        self.rows = []
        for index in range(13):
            responses = [[*tokens(0, 24), 2] for _ in range(1 + index % 4)]
            places = range(len(responses))
            pairs = [(w, l) for w in places for l in range(w + 1, len(responses))]  # noqa: E741
            columns = {
                "labels": [(index + place) % 3 > 0 for place in places] if needs & {"labels"} else None,
                "scores": [1.0 - 0.2 * place for place in places] if needs & SCORED else None,
                "margins": [[0.3 * place - 0.1 * index] for place in places] if needs & {"margins"} else None,
                "target": len(responses) - 1 if needs & {"targets"} else None,
                "given": [len(r) - 1 for r in responses] if needs & {"verdicts", "comparisons"} else None,
            }
            self.rows.append(Encoded(f"row-{index}", index, [1, *tokens(0, 30)], responses, pairs, 0, **columns))
        self.response_lengths = np.array([len(response) for r in self.rows for response in r.responses])
        self.response_offsets = np.cumsum([0, *(len(r.responses) for r in self.rows)])
        self.prompt_lengths = np.array([len(r.prompt) for r in self.rows])
        self.prompt_hashes = np.array([hash(tuple(r.prompt)) for r in self.rows])
        self.num_pairs = np.array([len(r.pairs) for r in self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Encoded:
        return self.rows[place]


SCORED = {"ranking", "scores", "probabilities"}


def ragged_rows(needs: frozenset[str], share_prompts: bool) -> Rows:
    """The ragged examples with every cached column that the needs ask for."""
    rows = Rows(RaggedSet(needs), needs, share_prompts)  # type: ignore[arg-type]
    if "reference" in needs:
        rows.set_reference(-np.linspace(5.0, 90.0, rows.num_responses))
        if rows.baseline is not None:
            rows.baseline.set_reference(-np.linspace(170.0, 34.0, rows.baseline.num_responses))  # a KL above 0
    if "reference_tokens" in needs:
        rows.set_reference_tokens(-np.linspace(1.0, 6.0, int(rows.token_offsets[-1])))
    return rows


def settings(engine: str, layout: str = "shared", lora: bool = False, dtype: str = "float32") -> RunSettings:
    """A run on the tiny model with learning rate 0, so that every step starts from the same weights."""
    run = RunSettings()
    run.launch.device = "cpu"
    run.model.path = str(MODEL)
    run.model.layout = layout
    run.model.dtype = dtype
    run.model.lora = LoraSettings(r=4) if lora else None
    run.optim.lr = 0.0
    if engine.startswith("zero"):
        zero: dict[str, Any] = {"stage": int(engine[4])}
        if engine.endswith("off"):
            zero |= {f"offload_{what}": {"device": "cpu"} for what in ("optimizer", "param")[: zero["stage"] - 1]}
        run.deepspeed = DeepSpeedSettings(config={"zero_optimization": zero})
    if engine == "fsdp":
        run.fsdp = FsdpSettings(strategy="full_shard")
    return run


def make_engine(run: RunSettings, scalar_head: bool = False) -> Engine:
    """An engine around the tiny policy, or the same with a scalar head; a live reference beside it where it can be."""
    engine = Engine(run)
    torch.manual_seed(3)  # a head that the folder does not have starts at random
    policy = (load_reward_policy if scalar_head else load_policy)(run.model, longest=64)
    if run.model.lora is not None:
        set_adapters(policy, sharded=engine.zero_stage == 3)
    engine.wrap(policy)
    if run.model.lora is None and engine.zero_stage != 3 and not scalar_head:
        run.model.reference = str(REFERENCE)
        attach_live_reference(engine, LIVE, 64, lambda line: None)
    return engine


def runs_on(engine: Engine, loss_name: str) -> bool:
    """Whether a method is for this engine: its head is there, and a live reference where it needs one."""
    needs = make_loss(LOSSES[loss_name]).needs
    if ("rewards" in needs) != engine.policy.has_scalar_head:
        return False
    return not needs & LIVE or engine.policy.has_adapters or engine.live_reference is not None


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
    rows = ragged_rows(loss.needs, engine.policy.shares_prompts)
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
        micro_batches = rows.micro_batches(dealt, engine.rank)
        result = train_step(engine, loss, micro_batches, step=0, baseline=baseline_of(rows, how, engine))
    finally:
        engine.step = step  # type: ignore[method-assign]
    return {
        "num_micro_batches": dealt.num_micro_batches,
        "metrics": {k: v for k, v in result.items() if k not in ("units", "stop", "tokens")},
        "units": {str(k): v for k, v in result["units"].items()},
        "gradient": gradient,
    }


def baseline_of(rows: Rows, how: str, engine: Engine) -> list[MicroBatch]:
    """This rank's responses to other prompts, cut in the same way."""
    if rows.baseline is None:
        return []
    return rows.baseline.micro_batches(deal(rows.baseline, how, engine.world_size), engine.rank)


def _full_gradient(engine: Engine, parameter: torch.nn.Parameter) -> torch.Tensor:
    if engine.zero_stage is None:
        assert parameter.grad is not None
        gradient = parameter.grad.detach()
        return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient.clone()
    from deepspeed.utils import safe_get_full_grad

    return safe_get_full_grad(parameter).detach().clone().float()


def cuts_of(engine_name: str) -> tuple[str, ...]:
    """How the two-rank worker cuts the step: recomputation is the layers' own affair and costs time."""
    return ("four",) if "recomputed" in engine_name else CUTS


def main(out: str, engine_name: str, head: str) -> None:
    os.environ["PREFOPT_WORLD_SIZE"] = os.environ["WORLD_SIZE"]
    logps.MAX_LOGITS = FEW_LOGITS
    kind, *more = engine_name.split("_")
    run = settings(kind, lora="lora" in more)
    run.model.checkpoint_every = 1 if "recomputed" in more else None
    engine = make_engine(run, scalar_head=head == "scalar")
    mine = [loss for loss in LOSSES if runs_on(engine, loss)]
    results = {(loss, how): one_step(engine, loss, how) for loss in mine for how in cuts_of(engine_name)}
    if engine.is_main:
        torch.save({"in_force": engine.in_force, "results": results}, out)
    engine.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave(0)
