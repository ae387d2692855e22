"""The end of a run: a model folder that has been reloaded and compared before it gets its name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from prefopt.model.save import PROBE_FILE, save_model, verify, write_probe
from prefopt.pack import pack
from prefopt.train.engine import Engine
from prefopt.train.rows import Rows

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.3}
"""Largest difference, nats per token or of a reward, between the live model and the reloaded one's own attention."""


def save_and_verify(
    engine: Engine, tokenizer: PreTrainedTokenizerBase, start: Path, rows: Rows, folder: Path, card: str
) -> float:
    """Save to a temporary folder, verify in a fresh process, rename; returns the largest difference (nats or reward).

    Every rank must call. Raises: RunError where the reloaded model differs; the folder then keeps a name of its own.
    """
    # What is read and not predicted in training is predicted here: a probe knows whole responses only.
    examples = [replace(rows[p], given=None) for p in range(min(2, len(rows)))]
    engine.module.eval()
    with torch.no_grad():
        batch = pack(examples, rows.share_prompts, whole_responses=rows.whole_responses).to(engine.device)
        live = engine(batch)
    state = engine.gathered_state()
    difference = 0.0
    if engine.is_main:
        unverified = folder.with_name(f"unverified-{folder.name}")
        shutil.rmtree(unverified, ignore_errors=True)
        save_model(engine.policy, state, tokenizer, start, unverified, card)
        write_probe(unverified / PROBE_FILE, examples, live, TOLERANCE[engine.arithmetic])
        difference = verify(unverified, unverified / PROBE_FILE, engine.run.model)
        (unverified / PROBE_FILE).unlink()
        shutil.rmtree(folder, ignore_errors=True)
        unverified.rename(folder)
    engine.barrier()
    return difference
