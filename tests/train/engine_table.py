"""What every engine makes of three steps: the worker of `test_engine_table.py`, for one rank or two.

torchrun --nproc_per_node 2 tests/train/engine_table.py FOLDER STRAIGHT
    FOLDER: where this world's results, checkpoints and models go. STRAIGHT: that of one plain process.

DeepSpeed and accelerate can be set up again and again in one process, so that the whole table costs two starts.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from ragged import MODEL, RaggedSet, baseline_of, deal, set_adapters, settings
from transformers import PreTrainedTokenizerFast
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from prefopt.lifetime import leave
from prefopt.losses import make_loss
from prefopt.model.load import load_policy
from prefopt.model.save import save_model, write_probe
from prefopt.pack import pack
from prefopt.settings import RunSettings
from prefopt.train import checkpoint
from prefopt.train.checkpoint import Progress
from prefopt.train.engine import Engine
from prefopt.train.rows import Rows
from prefopt.train.scoring import score, sequence_logps
from prefopt.train.step import train_step

ENGINES = ("ddp", "zero0", "zero1", "zero2", "zero3", "zero2off", "zero3off", "fsdp")
WEIGHTS = ("full", "lora")
LOSSES = ("dpo", "orpo")
"""One that compares with a reference, and one that does not."""
DTYPES = ("float32", "bfloat16")
HOW = ("one", "four", "alone")
"""How each step is cut; in the last, one of two ranks has a micro-batch that does not count."""
LR = 2e-3

Case = tuple[str, str, str, str]
"""Engine, weights, loss, dtype."""


def cases() -> Iterator[Case]:
    """The whole table; bfloat16 with the method that asks for more, and not where it is refused."""
    for engine, weights, loss, dtype in product(ENGINES, WEIGHTS, LOSSES, DTYPES):
        if dtype == "float32" or (loss == "dpo" and engine != "zero0"):
            yield engine, weights, loss, dtype


def recipe(case: Case) -> RunSettings:
    """The run of a case."""
    engine, weights, loss, dtype = case
    run = settings(engine, lora=weights == "lora", dtype=dtype)
    run.loss = {"name": loss}
    run.optim.lr, run.optim.weight_decay = LR, 0.1
    return run


def fresh(case: Case) -> Engine:
    """An engine as in a new process."""
    gc.collect()
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    unset_hf_deepspeed_config()
    for name in [n for n in os.environ if n.startswith("ACCELERATE_")]:
        del os.environ[name]
    run = recipe(case)
    engine = Engine(run)
    policy = load_policy(run.model, longest=64)
    if run.model.lora is not None:
        set_adapters(policy, sharded=engine.zero_stage == 3)
    engine.wrap(policy)
    return engine


def make_rows(engine: Engine) -> Rows:
    """The ragged rows, their reference scored by the engine."""
    needs = make_loss(engine.run.loss).needs
    rows = Rows(RaggedSet(needs), needs, engine.policy.shares_prompts)  # type: ignore[arg-type]
    if "reference" in needs:
        engine.tokens_per_micro_batch = 64
        engine.module.eval()
        with engine.policy.reference():
            rows.set_reference(score(engine, engine, sequence_logps(rows)))
        engine.module.train()
    return rows


def one_step(engine: Engine, rows: Rows, step: int) -> dict[str, float]:
    """The step's metrics."""
    how = HOW[step]
    micro_batches = rows.micro_batches(deal(rows, how, engine.world_size), engine.rank)
    engine.set_lr(LR)
    loss = make_loss(engine.run.loss)
    found = train_step(engine, loss, micro_batches, step, baseline=baseline_of(rows, how, engine))
    return {name: value for name, value in found.items() if isinstance(value, float)}


def weights_of(engine: Engine) -> dict[str, torch.Tensor]:
    """What is trained, whole, on the main rank."""
    names = {n.removeprefix("model.") for n, p in engine.policy.named_parameters() if p.requires_grad}
    return {n: t.detach().clone() for n, t in engine.gathered_state().items() if n in names}


def save(engine: Engine, rows: Rows, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """The model folder with its probe, as at the end of a run."""
    examples = [rows[place] for place in range(2)]
    engine.module.eval()
    with torch.no_grad():
        live = engine(pack(examples, rows.share_prompts).to(engine.device))
    state = engine.gathered_state()
    if engine.is_main:
        save_model(engine.policy, state, tokenizer, MODEL, folder, "card")
        write_probe(folder / "probe.safetensors", examples, live, 1e-4)
    engine.barrier()


def three_steps(case: Case, tokenizer: PreTrainedTokenizerFast, folder: Path) -> dict[str, Any]:
    """Three steps straight, a checkpoint after the second; then the third once more by a fresh engine that loads it."""
    engine = fresh(case)
    rows = make_rows(engine)
    metrics = [one_step(engine, rows, step) for step in (0, 1)]
    folder.mkdir(parents=True, exist_ok=True)
    path = checkpoint.save(engine, folder / "checkpoints", Progress(step=2), keep=1)
    metrics.append(one_step(engine, rows, 2))
    found = {"in_force": engine.in_force, "metrics": metrics, "weights": weights_of(engine)}
    if case[2] == "dpo" and case[3] == "float32":
        save(engine, rows, tokenizer, folder / "model")
    return found | {"resumed": third_step(case, path, rows)}


def third_step(case: Case, path: Path, rows: Rows | None = None) -> dict[str, Any]:
    """The last step by a fresh engine that goes on from a checkpoint."""
    engine = fresh(case)
    rows = rows or make_rows(engine)
    checkpoint.load(engine, path)
    metrics = one_step(engine, rows, 2)
    return {"metrics": metrics, "weights": weights_of(engine)}


def folder_of(folder: Path, case: Case) -> Path:
    """Where a case keeps what it writes."""
    return folder / "-".join(case)


def main(folder: Path, straight: Path) -> None:
    """The whole table in this world."""
    tokenizer = make_tokenizer()
    results: dict[Case, dict[str, Any]] = {}
    for case in cases():
        if case[0] == "ddp" and os.environ["WORLD_SIZE"] == "1":
            continue  # that is `STRAIGHT`
        started = time.perf_counter()
        found = three_steps(case, tokenizer, folder_of(folder, case))
        (path,) = (folder_of(straight, ("ddp", *case[1:])) / "checkpoints").glob("step-*")
        found["taken_over"] = third_step(case, path)
        results[case] = found | {"seconds": time.perf_counter() - started}
    if torch.distributed.get_rank() == 0:
        torch.save(results, folder / "results.pt")
    torch.distributed.destroy_process_group()


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Something to save beside the weights."""
    from tokenizers import Tokenizer, models

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))


if __name__ == "__main__":
    os.environ["PREFOPT_WORLD_SIZE"] = os.environ["WORLD_SIZE"]
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    leave(0)
