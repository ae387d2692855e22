"""The end of a run: a model folder that has been reloaded and compared before it gets its name."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from prefopt.model.save import PROBE_FILE, save_model, verify, write_probe
from prefopt.pack import pack
from prefopt.train.engine import Engine
from prefopt.train.rows import Rows

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.3}
"""Largest difference, nats per token, between the packed live model and the reloaded one's own attention."""


def save_and_verify(
    engine: Engine, tokenizer: PreTrainedTokenizerBase, start: Path, rows: Rows, folder: Path, card: str
) -> float:
    """Save to a temporary folder, verify in a fresh process, rename; returns the largest difference in nats.

    Every rank must call. Raises: RunError where the reloaded model differs; the folder then keeps a name of its own.
    """
    examples = [rows[p] for p in range(min(2, len(rows)))]
    engine.module.eval()
    with torch.no_grad():
        batch = pack(examples, rows.share_prompts).to(engine.device)
        live = engine(batch)[0]
    state = engine.gathered_state()
    difference = 0.0
    if engine.is_main:
        unverified = folder.with_name(f"unverified-{folder.name}")
        shutil.rmtree(unverified, ignore_errors=True)
        save_model(engine.policy, state, tokenizer, start, unverified, card)
        dtype = (
            torch.bfloat16 if engine.accelerator.mixed_precision == "bf16" else next(engine.policy.parameters()).dtype
        )
        write_probe(unverified / PROBE_FILE, examples, live, TOLERANCE[dtype])
        difference = verify(unverified, unverified / PROBE_FILE)
        (unverified / PROBE_FILE).unlink()
        shutil.rmtree(folder, ignore_errors=True)
        unverified.rename(folder)
    engine.barrier()
    return difference
